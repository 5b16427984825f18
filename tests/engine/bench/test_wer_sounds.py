import numpy as np
import pytest
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE
from engine.bench.wer_sounds import SOUNDS, hum, noise, tones


def level_db(samples: NDArray[np.float32], low_hz: float, high_hz: float) -> float:
    """Mean power of a band."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return float(10 * np.log10(power[(low_hz <= hz) & (hz < high_hz)].mean()))


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds_are_as_long_as_was_asked_and_the_same_every_time(name: str) -> None:
    sound = SOUNDS[name](1.5, 3)
    assert sound.dtype == np.float32
    assert len(sound) == 24_000
    np.testing.assert_array_equal(sound, SOUNDS[name](1.5, 3))


@pytest.mark.parametrize("name", [name for name in SOUNDS if name != "silence"])
def test_sounds_are_heard_and_do_not_clip(name: str) -> None:
    sound = SOUNDS[name](5, 3)
    assert np.sqrt(np.mean(np.square(sound))) == pytest.approx(0.03, rel=1e-3)
    assert np.abs(sound).max() < 1


def test_silence_is_silent() -> None:
    assert not SOUNDS["silence"](1, 3).any()


@pytest.mark.parametrize(("slope", "db_per_octave"), [(0, 0), (1, 3), (2, 6)])
def test_noise_falls_with_its_slope(slope: float, db_per_octave: float) -> None:
    sound = noise(10, 3, slope)
    falls = level_db(sound, 400, 420) - level_db(sound, 1600, 1680)  # two octaves
    assert falls == pytest.approx(2 * db_per_octave, abs=1.5)


def test_hum_is_of_the_mains_and_its_harmonics() -> None:
    sound = hum(2, 3)
    for harmonic in (50, 100, 400):
        assert level_db(sound, harmonic - 0.2, harmonic + 0.3) > level_db(sound, 20, 45) + 40
    assert level_db(sound, 1000, 8000) < level_db(sound, 45, 405) - 40


def test_tones_have_pauses_between_them() -> None:
    sound = tones(20, 3)
    quiet = np.abs(sound).reshape(-1, 400).max(axis=1) < 1e-6
    assert 0.2 < quiet.mean() < 0.8
