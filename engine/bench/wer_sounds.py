"""Sounds in which nobody speaks, for counting the words that are heard in them."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE, samples_from_seconds

_RMS: Final = 0.03  # some 30 dB below full scale: a loud fan beside the microphone
_LOWEST_HZ: Final = 20.0  # below it noise is not heard, and would take all of the level
_MAINS_HZ: Final = 50.0
_HUM_HARMONICS: Final = 8
_TONES_HZ: Final = (220.0, 3520.0)  # four octaves
_TONE_S: Final = (0.1, 1.5)  # a beep, a held note
_NOTES_AT_ONCE: Final = 3  # at most: chords as well

Sound = Callable[[float, int], NDArray[np.float32]]


def silence(seconds: float, seed: int) -> NDArray[np.float32]:
    """Digital silence [samples] at 16 kHz; `seed` changes nothing."""
    return np.zeros(samples_from_seconds(seconds), np.float32)


def noise(seconds: float, seed: int, slope: float) -> NDArray[np.float32]:
    """Noise [samples] whose power falls with frequency to the `slope`: 0 white, 1 pink, 2 brown."""
    count = samples_from_seconds(seconds)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    gain = np.maximum(hz, _LOWEST_HZ) ** (-slope / 2)
    gain[hz < _LOWEST_HZ] = 0.0
    return _at_level(np.fft.irfft(spectrum * gain, count))


def hum(seconds: float, seed: int) -> NDArray[np.float32]:
    """Mains hum [samples]: 50 Hz and its harmonics, each weaker than the one before."""
    time = np.arange(samples_from_seconds(seconds)) / SAMPLE_RATE
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, _HUM_HARMONICS)
    total = np.zeros(len(time))
    for number, phase in enumerate(phases, start=1):
        total += np.sin(2 * np.pi * _MAINS_HZ * number * time + phase) / number
    return _at_level(total)


def tones(seconds: float, seed: int) -> NDArray[np.float32]:
    """Tones and chords [samples] of random pitch and length, with pauses as long between them."""
    count = samples_from_seconds(seconds)
    generator = np.random.default_rng(seed)
    total = np.zeros(count)
    at = 0
    while at < count:
        length = min(samples_from_seconds(generator.uniform(*_TONE_S)), count - at)
        time = np.arange(length) / SAMPLE_RATE
        for _ in range(generator.integers(1, _NOTES_AT_ONCE + 1)):
            hz = np.exp(generator.uniform(*np.log(_TONES_HZ)))
            total[at : at + length] += np.sin(2 * np.pi * hz * time)
        total[at : at + length] *= np.hanning(length) ** 0.25  # swells and fades, without clicks
        at += length + samples_from_seconds(generator.uniform(*_TONE_S))
    return _at_level(total)


def _at_level(samples: NDArray[np.float64]) -> NDArray[np.float32]:
    rms = float(np.sqrt(np.mean(np.square(samples))))
    return (samples * (_RMS / rms)).astype(np.float32)


SOUNDS: Final[Mapping[str, Sound]] = {
    "silence": silence,
    "white noise": lambda seconds, seed: noise(seconds, seed, 0),
    "pink noise": lambda seconds, seed: noise(seconds, seed, 1),
    "brown noise": lambda seconds, seed: noise(seconds, seed, 2),
    "hum": hum,
    "tones": tones,
}
