"""Log-mel features of growing windows in plain torch, for a batch of slots at once.

What `engine.model.mel` does for one window in numpy, on tensors by slot: Whisper's features
(openai/whisper `audio.py`) but for the clamp, which depends on the whole window and is made when
they are asked for. Frames are computed in blocks at fixed places, so that a frame always meets
the same arithmetic. Nothing is read back to the host, and shapes depend on host integers only.
`log_mel` is the fast twin.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.audio.units import (
    FFT_SAMPLES,
    HOP_SAMPLES,
    MAX_WINDOW_FRAMES,
    MAX_WINDOW_SAMPLES,
)

BLOCK_FRAMES: Final = 16  # 160 ms; the least number of rows of a matrix product on a GPU
MAX_BLOCKS: Final = -(-MAX_WINDOW_FRAMES // BLOCK_FRAMES)
HALF_SAMPLES: Final = FFT_SAMPLES // 2
FLOOR: Final = 1e-10  # Whisper's least power
SILENCE: Final = -10.0  # the same in log10
RANGE: Final = 8.0  # decades kept below the window's maximum
TABLE_TERMS: Final = 208  # HALF_SAMPLES terms, padded to whole steps of 16
TABLE_BINS: Final = 256  # HALF_SAMPLES + 1 bins, padded to whole tiles of 64


@dataclass(frozen=True, slots=True)
class MelTables:
    """What the transform multiplies by, on the device.

    Row n of `cosines` and `sines` belongs to samples n + 1 and FFT_SAMPLES - n - 1 of a frame,
    whose window is the same and whose cosines are equal and sines opposite: their sum and their
    difference need one product each. Sample 0 has no weight.
    """

    hann: Tensor  # [FFT_SAMPLES] float64, periodic
    cosines: Tensor  # [TABLE_TERMS, TABLE_BINS] float64, windowed, zero behind the terms and bins
    sines: Tensor  # the same
    filters: Tensor  # [HALF_SAMPLES + 1, n_mels] float64
    padded_filters: Tensor  # [TABLE_BINS, a power of two of at least 16 mels] float32

    @property
    def num_mels(self) -> int:
        """Mel bands."""
        return self.filters.shape[1]

    @classmethod
    def build(cls, filters: NDArray[np.float64], device: torch.device) -> "MelTables":
        """Take triangular `filters` [HALF_SAMPLES + 1, n_mels], as `mel_filters` gives them.

        Raises ValueError for any other number of bins.
        """
        num_bins, num_mels = filters.shape
        if num_bins != HALF_SAMPLES + 1:
            raise ValueError(f"filters are of {HALF_SAMPLES + 1} bins, got {num_bins}")
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SAMPLES) / FFT_SAMPLES)
        terms, bins = np.arange(1, HALF_SAMPLES + 1), np.arange(num_bins)
        # Reduced as an integer: the angle of a product of thousands is exact to the last bit.
        angles = 2 * np.pi * (np.outer(terms, bins) % FFT_SAMPLES) / FFT_SAMPLES
        weights = hann[terms]
        weights[-1] /= 2  # the middle sample is its own partner and is added to itself
        cosines = np.zeros((TABLE_TERMS, TABLE_BINS))
        sines = np.zeros((TABLE_TERMS, TABLE_BINS))
        cosines[:HALF_SAMPLES, :num_bins] = weights[:, None] * np.cos(angles)
        sines[:HALF_SAMPLES, :num_bins] = weights[:, None] * np.sin(angles)
        padded = np.zeros((TABLE_BINS, max(16, 1 << (num_mels - 1).bit_length())), dtype=np.float32)
        padded[:num_bins, :num_mels] = filters
        return cls(
            *(torch.from_numpy(t).to(device) for t in (hann, cosines, sines, filters, padded))
        )


def num_window_frames(count: int) -> int:
    """Frames of a window of `count` samples: the last ones may still change."""
    return min(MAX_WINDOW_FRAMES, -(-(count + HALF_SAMPLES) // HOP_SAMPLES))


def num_final_blocks(count: int) -> int:
    """Blocks of a window that no sample behind its first `count` changes.

    What an update of the grown window may begin at. One sample more than the last frame covers:
    the reflection at the left needs it.
    """
    return max(0, ((count - HALF_SAMPLES - 1) // HOP_SAMPLES + 1) // BLOCK_FRAMES)


def num_blocks(count: int) -> int:
    """Blocks that hold the frames of a window of `count` samples."""
    return -(-num_window_frames(count) // BLOCK_FRAMES)


def update_log_mel(
    audio: Tensor,
    counts: Tensor,
    firsts: Tensor,
    slots: Tensor,
    frames: Tensor,
    block_peaks: Tensor,
    tables: MelTables,
    *,
    most_blocks: int,
) -> None:
    """Bring the log power of each row's window up to its samples.

    `slots`, `counts` and `firsts` are [rows] int64: the window of a row is the first `counts`
    samples of its slot in `audio` [slots, MAX_WINDOW_SAMPLES] float32, whatever lies behind them,
    and its blocks from `firsts` on are computed, `most_blocks` at most. `num_final_blocks` of the
    previous count tells `firsts`. Written in place: `frames`
    [slots, MAX_WINDOW_FRAMES, n_mels] float32, unclamped log10 power, and `block_peaks`
    [slots, MAX_BLOCKS] float32, the maximum over the frames of each block that the window has.
    """
    device = audio.device
    window_frames = _window_frames(counts)
    lanes = torch.arange(BLOCK_FRAMES, device=device)
    taps = torch.arange(FFT_SAMPLES, device=device)
    filters = tables.filters.expand(len(slots), -1, -1)
    for step in range(most_blocks):
        # A row with fewer blocks computes its last one again, and writes the same.
        block = torch.minimum(firsts + step, (window_frames - 1) // BLOCK_FRAMES)
        frame = block[:, None] * BLOCK_FRAMES + lanes
        at = (frame * HOP_SAMPLES - HALF_SAMPLES)[:, :, None] + taps
        # The 30 s window is reflected at both of its ends.
        at = at.abs()
        at = torch.where(at < MAX_WINDOW_SAMPLES, at, 2 * (MAX_WINDOW_SAMPLES - 1) - at)
        samples = audio[slots[:, None, None], at]
        samples = torch.where(at < counts[:, None, None], samples, 0.0)
        spectrum = torch.fft.rfft(samples.double() * tables.hann, dim=-1)
        power = spectrum.real.square() + spectrum.imag.square()
        # One product per row: a larger one may add in another order.
        levels = torch.bmm(power, filters).clamp(min=FLOOR).log10().float()
        # Frames behind the window repeat its last one, which changes neither frames nor peak.
        lane = torch.minimum(lanes, (window_frames - 1)[:, None] - block[:, None] * BLOCK_FRAMES)
        levels = levels.gather(1, lane[:, :, None].expand_as(levels))
        frames[slots[:, None], block[:, None] * BLOCK_FRAMES + lane] = levels
        block_peaks[slots, block] = levels.amax(dim=(1, 2))


def mel_features(
    frames: Tensor,
    block_peaks: Tensor,
    counts: Tensor,
    slots: Tensor,
    num_frames: int,
    dtype: torch.dtype,
) -> Tensor:
    """Whisper's input features of each row [rows, n_mels, num_frames], clamped and scaled.

    `num_frames` is MAX_WINDOW_FRAMES at most, `dtype` any float type.
    `frames` and `block_peaks` are what `update_log_mel` wrote for windows of `counts` samples in
    `slots` (both [rows] int64). Frames behind a window are silence. The maximum is the whole
    window's, so the first frames are the same however many are asked for.
    """
    window_frames = _window_frames(counts)
    blocks = torch.arange(block_peaks.shape[1], device=frames.device)
    known = blocks * BLOCK_FRAMES < window_frames[:, None]
    loudest = torch.where(known, block_peaks[slots], SILENCE).amax(dim=1).clamp(min=SILENCE)
    levels = frames[slots, :num_frames]
    valid = torch.arange(num_frames, device=frames.device) < window_frames[:, None]
    levels = torch.where(valid[:, :, None], levels, SILENCE)
    levels = torch.maximum(levels, (loudest - RANGE)[:, None, None])
    return ((levels + 4.0) / 4.0).transpose(1, 2).to(dtype).contiguous()


def _window_frames(counts: Tensor) -> Tensor:
    """Frames of windows of `counts` samples, [rows] int64."""
    return ((counts + HALF_SAMPLES + HOP_SAMPLES - 1) // HOP_SAMPLES).clamp(max=MAX_WINDOW_FRAMES)
