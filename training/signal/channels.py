"""What lies between a mouth and a recogniser: rooms, narrow bands, codecs. Batched, on a device.

Every function takes waves [rows, samples] float32 and returns as many; the rows that are not to
change are not given to it.
"""

import math
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from engine.audio.units import SAMPLE_RATE

_MU: Final = 255.0
_LOG_MU: Final = math.log1p(_MU)
_LONGEST_ROOM: Final = 12_000  # samples of reverberation: 0.75 s
_DECAY: Final = 6.9  # natural logarithm of the 60 dB that a reverberation time is defined by
_FFT: Final = 320
_BAND_EDGE_HZ: Final = 100.0
# The codec's bands, in bins of 50 Hz: narrower where hearing is finer.
_BANDS: Final = (0, 4, 8, 12, 18, 26, 38, 56, 84, 120, 161)


def reverberate(waves: Tensor, seconds: Tensor, wetness: Tensor) -> Tensor:
    """Put each row into a room of its own: `seconds` [rows] of reverberation time.

    `wetness` [rows] is the energy of the reflections relative to what comes straight.
    """
    rows, count = waves.shape
    time = torch.arange(_LONGEST_ROOM, device=waves.device) / SAMPLE_RATE
    decay = torch.exp(-_DECAY * time / seconds[:, None])
    room = torch.randn(rows, _LONGEST_ROOM, device=waves.device) * decay
    room = room / room.norm(dim=1, keepdim=True) * wetness[:, None]
    room[:, 0] = 1
    size = 1 << (count + _LONGEST_ROOM - 1).bit_length()
    spectrum = torch.fft.rfft(waves, size) * torch.fft.rfft(room, size)
    heard: Tensor = torch.fft.irfft(spectrum, size)
    return heard[:, :count]


def limit_band(waves: Tensor, lowest_hz: Tensor, highest_hz: Tensor) -> Tensor:
    """Keep what lies between two frequencies [rows], with edges 100 Hz wide."""
    count = waves.shape[1]
    hertz = torch.fft.rfftfreq(count, 1 / SAMPLE_RATE, device=waves.device)
    above = torch.sigmoid((hertz - lowest_hz[:, None]) / (_BAND_EDGE_HZ / 4))
    below = torch.sigmoid((highest_hz[:, None] - hertz) / (_BAND_EDGE_HZ / 4))
    kept: Tensor = torch.fft.irfft(torch.fft.rfft(waves) * (above * below), count)
    return kept


def mu_law(waves: Tensor) -> Tensor:
    """Through the 8 bits of a telephone line (ITU-T G.711), full scale being 1."""
    clipped = waves.clamp(-1, 1)
    pressed = clipped.sign() * torch.log1p(_MU * clipped.abs()) / _LOG_MU
    steps = (pressed * 127).round() / 127
    return steps.sign() * torch.expm1(steps.abs() * _LOG_MU) / _MU


def low_bit_rate(waves: Tensor, floor_db: Tensor) -> Tensor:
    """As a transform codec with few bits leaves speech.

    In each band of each 20 ms, what is more than `floor_db` [rows] below the band's strongest
    bin is lost and the rest has coarse levels (3 dB). Phases stay.
    """
    count = waves.shape[1]
    window = torch.hann_window(_FFT, device=waves.device)
    spectrum = torch.stft(waves, _FFT, _FFT // 2, window=window, return_complex=True)
    level = 20 * torch.log10(spectrum.abs().clamp(min=1e-7))
    coarse = (level / 3).round() * 3
    gains = torch.zeros_like(level)
    for begin, end in pairwise(_BANDS):
        band = level[:, begin:end]
        floor = band.amax(dim=1, keepdim=True) - floor_db[:, None, None]
        changed = 10 ** ((coarse[:, begin:end] - band) / 20)
        gains[:, begin:end] = torch.where(band >= floor, changed, 0.0)
    return torch.istft(spectrum * gains, _FFT, _FFT // 2, window=window, length=count)
