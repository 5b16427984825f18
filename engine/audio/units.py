"""Units of time in the engine: samples, mel frames and encoder positions.

All internal time is an integer count of 16 kHz samples. The constants are Whisper's
(openai/whisper `audio.py`): a mel frame is one hop of 160 samples (10 ms), an encoder
position is two mel frames (20 ms), a window is at most 30 s.
"""

from typing import Final, NewType

Samples = NewType("Samples", int)
Frames = NewType("Frames", int)
Positions = NewType("Positions", int)

SAMPLE_RATE: Final = 16_000
FFT_SAMPLES: Final = 400
HOP_SAMPLES: Final = 160
FRAMES_PER_POSITION: Final = 2
SAMPLES_PER_POSITION: Final = HOP_SAMPLES * FRAMES_PER_POSITION
MAX_WINDOW_SAMPLES: Final = Samples(30 * SAMPLE_RATE)
MAX_WINDOW_FRAMES: Final = Frames(MAX_WINDOW_SAMPLES // HOP_SAMPLES)
MAX_WINDOW_POSITIONS: Final = Positions(MAX_WINDOW_FRAMES // FRAMES_PER_POSITION)


def samples_from_seconds(seconds: float) -> Samples:
    """Nearest whole sample."""
    return Samples(round(seconds * SAMPLE_RATE))


def samples_from_ms(milliseconds: float) -> Samples:
    """Nearest whole sample."""
    return Samples(round(milliseconds * SAMPLE_RATE / 1000))


def seconds_from_samples(samples: int) -> float:
    """Exact up to the float's own precision."""
    return samples / SAMPLE_RATE


def positions_covering(samples: int) -> Positions:
    """Encoder positions that hold `samples`, the last one possibly in part."""
    return Positions(-(-samples // SAMPLES_PER_POSITION))
