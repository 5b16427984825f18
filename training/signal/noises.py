"""Sounds without words: noises, hum, tones, and what resembles music; a minute of each."""

from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.audio.units import SAMPLE_RATE

_SECONDS: Final = 60
_MAINS_HZ: Final = 50
_LOWEST_HZ: Final = 20.0
# Scale degrees of a chord that is played in the music-like sound, in semitones above 110 Hz.
_CHORD: Final = (0, 4, 7, 12, 16, 19)
_RINGING_HZ: Final = (440.0, 480.0)
_NOTES_HZ: Final = (110.0, 4000.0)

Wave = NDArray[np.float64]


def noise_bank(device: torch.device, seconds: int = _SECONDS) -> Tensor:
    """[kinds, seconds × 16,000] float32, each with a root mean square of 1; always the same."""
    return torch.from_numpy(_sounds(seconds)).to(device)


@lru_cache(maxsize=1)
def _sounds(seconds: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    time = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    white = rng.standard_normal(len(time))
    pink = _coloured(white, 0.5)
    brown = _coloured(white, 1.0)
    sounds = [
        white,
        _coloured(white, 0.25),
        pink,
        np.roll(pink, len(pink) // 3),
        _coloured(white, 0.75),
        brown,
        _hum(time) + 0.3 * pink,
        brown * (1 + 0.8 * np.sin(2 * np.pi * 0.7 * time)),  # wind, waves, passing cars
        _clicks(rng, len(time)) + 0.1 * pink,
        _beeps(rng, time),
        _music(time) + 0.05 * white,
        _notes(rng, len(time)),
        _notes(rng, len(time)) + 0.1 * pink,
        _sweeps(rng, len(time)),
    ]
    scaled = np.stack([sound / np.sqrt(np.mean(np.square(sound))) for sound in sounds])
    return scaled.astype(np.float32)


def _coloured(white: Wave, slope: float) -> Wave:
    """Noise whose amplitude falls with the frequency to the power of `slope`."""
    spectrum = np.fft.rfft(white)
    hertz = np.fft.rfftfreq(len(white), 1 / SAMPLE_RATE)
    coloured: Wave = np.fft.irfft(spectrum * (hertz + _LOWEST_HZ) ** -slope, len(white))
    return coloured


def _hum(time: Wave) -> Wave:
    overtones = range(1, 8)
    hum: Wave = np.sum(
        [np.sin(2 * np.pi * _MAINS_HZ * k * time + k) / k for k in overtones], axis=0
    )
    return hum


def _clicks(rng: np.random.Generator, count: int) -> Wave:
    """Keyboards and crackles: short decaying bursts, some in a second."""
    burst = rng.standard_normal(200) * np.exp(-np.arange(200) / 30)
    impulses = (rng.random(count) < 6 / SAMPLE_RATE) * rng.random(count)
    return np.convolve(impulses, burst)[:count] * 30


def _beeps(rng: np.random.Generator, time: Wave) -> Wave:
    """Beeps, dial tones and ringing: one or two pure tones, on and off."""
    pitches = rng.uniform(200, 3000, len(time) // SAMPLE_RATE + 1)
    pitch = np.repeat(pitches, SAMPLE_RATE)[: len(time)]
    beeps = np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE) * (np.sin(2 * np.pi * time) > -0.5)
    ringing = np.sum([np.sin(2 * np.pi * hertz * time) for hertz in _RINGING_HZ], axis=0)
    half = len(time) // 2
    return np.concatenate([beeps[:half], ringing[half:]])


def _notes(rng: np.random.Generator, count: int) -> Wave:
    """Tones and chords of any pitch, timbre and length, with pauses between them."""
    notes = np.zeros(count)
    at = 0
    while at < count:
        length = min(int(rng.uniform(0.05, 2.0) * SAMPLE_RATE), count - at)
        time = np.arange(length) / SAMPLE_RATE
        overtones = rng.integers(1, 5)
        fade = np.hanning(length) ** rng.uniform(0.1, 1.0)
        if rng.random() < 0.3:  # struck rather than held
            fade = np.exp(-time * rng.uniform(1, 12))
        for _ in range(rng.integers(1, 5)):
            hertz = np.exp(rng.uniform(*np.log(_NOTES_HZ)))
            for k in range(1, overtones + 1):
                notes[at : at + length] += np.sin(2 * np.pi * hertz * k * time) / k * fade
        at += length + int(rng.uniform(0, 1.2) * (rng.random() < 0.7) * SAMPLE_RATE)
    return notes


def _sweeps(rng: np.random.Generator, count: int) -> Wave:
    """Sirens, whistles and alarms: tones that glide, wobble and break off."""
    sweeps = np.zeros(count)
    at = 0
    while at < count:
        length = min(int(rng.uniform(0.2, 3.0) * SAMPLE_RATE), count - at)
        time = np.arange(length) / SAMPLE_RATE
        low, high = np.log(_NOTES_HZ)
        begin, end = np.exp(rng.uniform(low, high, 2))
        wobble = 1 + rng.uniform(0, 0.2) * np.sin(2 * np.pi * rng.uniform(1, 12) * time)
        pitch = np.geomspace(begin, end, length) * wobble
        sweeps[at : at + length] = np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE)
        at += length + int(rng.uniform(0, 1.0) * SAMPLE_RATE)
    return sweeps


def _music(time: Wave) -> Wave:
    """Notes of a chord that come and go, each with overtones."""
    notes = []
    for number, semitones in enumerate(_CHORD):
        pitch = 110 * 2 ** (semitones / 12)
        loudness = np.maximum(np.sin(2 * np.pi * (0.3 + 0.11 * number) * time), 0)
        voice = np.sin(2 * np.pi * pitch * time) + 0.4 * np.sin(4 * np.pi * pitch * time)
        notes.append(voice * loudness)
    chord: Wave = np.sum(notes, axis=0)
    return chord
