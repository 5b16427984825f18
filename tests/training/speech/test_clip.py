import numpy as np
import pytest

from engine.audio.units import SAMPLE_RATE
from training.speech.clip import Clip, trimmed


def padded_tone() -> Clip:
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tone = (3000 * np.sin(2 * np.pi * 300 * time)).astype(np.int16)
    silence = np.zeros(SAMPLE_RATE, np.int16)
    return Clip(np.concatenate([silence, tone, silence]), (24_000, 48_000))


def test_silence_around_speech_is_cut_and_word_ends_move_along() -> None:
    clip = trimmed(padded_tone())
    assert clip is not None
    assert len(clip.samples) == pytest.approx(1.1 * SAMPLE_RATE, abs=320)
    assert clip.word_ends == (24_000 - 16_000 + 800, len(clip.samples))


def test_every_clip_is_as_loud_as_the_others() -> None:
    clip = trimmed(padded_tone())
    assert clip is not None
    assert np.abs(clip.samples).max() == pytest.approx(20_000, abs=2)


def test_a_clip_without_word_ends_stays_without() -> None:
    clip = trimmed(Clip(padded_tone().samples, None))
    assert clip is not None
    assert clip.word_ends is None


@pytest.mark.parametrize("count", [0, 100, SAMPLE_RATE])
def test_what_is_silent_or_very_short_is_no_clip(count: int) -> None:
    assert trimmed(Clip(np.zeros(count, np.int16), ())) is None
