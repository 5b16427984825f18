"""Audio that a loudness detector can tell apart, as float32 16 kHz."""

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE, samples_from_seconds

TONE_HZ = 200
AMPLITUDE = 0.5


def tone(seconds: float, sample_rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """What passes for speech."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return (AMPLITUDE * np.sin(2 * np.pi * TONE_HZ * time)).astype(np.float32)


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(samples_from_seconds(seconds), np.float32)


def s16le(samples: NDArray[np.float32]) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()
