"""Log-mel features, computed once per frame while a window grows.

Whisper's features (openai/whisper `audio.py`) are frame-local but for one clamp by the
window's maximum, so the unclamped log power of each frame is kept and clamped at encode time.
The centred STFT makes a frame final once 200 samples to its right exist; the frames after that
are provisional and computed again with the next audio.

Frames are computed in blocks of fixed size at fixed places. A frame therefore meets the same
arithmetic in the same lane whenever it is computed, and appended audio gives bit for bit what
the whole gives at once.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import (
    FFT_SAMPLES,
    HOP_SAMPLES,
    MAX_WINDOW_FRAMES,
    MAX_WINDOW_SAMPLES,
    SAMPLE_RATE,
)

_HALF: Final = FFT_SAMPLES // 2
_BLOCK_FRAMES: Final = 32  # 320 ms: about one refresh
_BLOCK_SAMPLES: Final = (_BLOCK_FRAMES - 1) * HOP_SAMPLES + FFT_SAMPLES
_FLOOR: Final = 1e-10  # Whisper's least power, -10 in log10
_RANGE: Final = 8.0  # decades kept below the window's maximum

# Periodic Hann, as torch.hann_window and transformers' window_function("hann") give it.
_HANN: Final = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SAMPLES) / FFT_SAMPLES)


def mel_filters(num_mels: int) -> NDArray[np.float64]:
    """Triangular filters on Slaney's mel scale, area-normalised.

    Returns [FFT_SAMPLES // 2 + 1, num_mels]; equal to librosa's `filters.mel`, from which
    OpenAI's `mel_filters.npz` was made.
    """
    linear_step, break_hz = 200.0 / 3, 1000.0
    break_mel, log_step = break_hz / linear_step, np.log(6.4) / 27.0

    top_mel = break_mel + np.log(SAMPLE_RATE / 2 / break_hz) / log_step
    mels = np.linspace(0.0, top_mel, num_mels + 2)
    edges = np.where(
        mels < break_mel,
        mels * linear_step,
        break_hz * np.exp(log_step * (mels - break_mel)),
    )
    bins = np.linspace(0.0, SAMPLE_RATE / 2, FFT_SAMPLES // 2 + 1)
    widths = np.diff(edges)
    ramps = edges[None, :] - bins[:, None]
    rising, falling = -ramps[:, :-2] / widths[:-1], ramps[:, 2:] / widths[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return triangles * (2.0 / (edges[2:] - edges[:-2]))


class LogMel:
    """Turns samples into log power, one block of frames at a time.

    In float64: a float32 transform is off by more than 1e-4 in the quiet bins that Whisper's
    range of eight decades still shows.
    """

    def __init__(self, num_mels: int) -> None:
        self.num_mels = num_mels
        self._filters = mel_filters(num_mels)

    def block(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log10 power [_BLOCK_FRAMES, num_mels] of `samples` [_BLOCK_SAMPLES], unclamped."""
        frames = np.lib.stride_tricks.sliding_window_view(samples, FFT_SAMPLES)[::HOP_SAMPLES]
        spectrum = np.fft.rfft(frames * _HANN, axis=-1)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        return np.log10(np.maximum(power @ self._filters, _FLOOR)).astype(np.float32)


class MelWindow:
    """Log power of one growing window, in a row that its owner provides.

    `frames` [MAX_WINDOW_FRAMES, num_mels] float32 is written in place. Touched only by the
    runner.
    """

    def __init__(self, log_mel: LogMel, frames: NDArray[np.float32]) -> None:
        self._log_mel = log_mel
        self._frames = frames
        self._final_blocks = 0
        self._num_frames = 0

    def restart(self) -> None:
        """Begin another window in the same row."""
        self._final_blocks = 0
        self._num_frames = 0

    def update(self, samples: NDArray[np.float32]) -> None:
        """Bring the features up to `samples` [n], the whole window so far.

        Everything to the right of the last sample counts as silence, as Whisper's padding does.
        """
        count = len(samples)
        if count > MAX_WINDOW_SAMPLES:
            raise ValueError(f"a window holds {MAX_WINDOW_SAMPLES} samples at most, got {count}")
        self._num_frames = min(MAX_WINDOW_FRAMES, -(-(count + _HALF) // HOP_SAMPLES))
        num_blocks = -(-self._num_frames // _BLOCK_FRAMES)
        for block in range(self._final_blocks, num_blocks):
            first = block * _BLOCK_FRAMES
            rows = min(_BLOCK_FRAMES, MAX_WINDOW_FRAMES - first)
            self._frames[first : first + rows] = self._log_mel.block(
                _block_samples(samples, first)
            )[:rows]
            # One sample more than the last frame covers: the reflection at the left needs it.
            if (first + _BLOCK_FRAMES - 1) * HOP_SAMPLES + _HALF + 1 <= count:
                self._final_blocks = block + 1

    def features(self, num_frames: int, first: int = 0) -> NDArray[np.float32]:
        """Whisper's input features [num_frames - first, num_mels], clamped and scaled.

        They are those of frames `first` to `num_frames`; behind the audio they are silence. The
        maximum is the whole window's, so a trimmed context holds the same numbers as the full one.
        """
        valid = max(first, min(self._num_frames, num_frames))
        known = self._frames[: self._num_frames]
        silence = np.float32(np.log10(_FLOOR))
        loudest = max(np.float32(known.max()), silence) if self._num_frames else silence
        least = np.float32(loudest - _RANGE)
        shape = num_frames - first, known.shape[1]
        features = np.full(shape, max(silence, least), dtype=np.float32)
        np.maximum(known[first:valid], least, out=features[: valid - first])
        features += np.float32(4.0)
        features /= np.float32(4.0)
        return features


def _block_samples(samples: NDArray[np.float32], first_frame: int) -> NDArray[np.float32]:
    """The samples under one block of frames, reflected at both ends of the 30 s window."""
    begin = first_frame * HOP_SAMPLES - _HALF
    end = begin + _BLOCK_SAMPLES
    block = np.zeros(_BLOCK_SAMPLES, dtype=np.float32)
    inside = samples[max(begin, 0) : end]
    offset = max(-begin, 0)
    block[offset : offset + len(inside)] = inside
    if begin < 0:
        mirror = samples[1 : _HALF + 1][::-1]
        block[_HALF - len(mirror) : _HALF] = mirror
    beyond = min(end - MAX_WINDOW_SAMPLES, _HALF)
    if beyond > 0:
        tail = samples[MAX_WINDOW_SAMPLES - 1 - beyond : MAX_WINDOW_SAMPLES - 1]
        last = MAX_WINDOW_SAMPLES - begin + beyond  # the reflection of the tail's first sample
        block[last - len(tail) : last] = tail[::-1]
    return block
