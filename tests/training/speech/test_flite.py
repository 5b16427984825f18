from ctypes.util import find_library

import pytest

from engine.audio.units import SAMPLE_RATE
from training.errors import RecipeError
from training.speech.flite import Flite
from training.speech.voices import FLITE_VOICES, Voice

TEXT = "Hello there, how are you today?"


@pytest.fixture(scope="module")
def flite() -> Flite:
    if find_library("flite") is None:
        pytest.skip("flite is not installed")
    return Flite()


@pytest.mark.parametrize("name", FLITE_VOICES)
def test_a_sentence_is_spoken_and_its_words_end_in_order(flite: Flite, name: str) -> None:
    clip = flite.speak(TEXT, Voice("flite", name))
    assert 1.0 < len(clip.samples) / SAMPLE_RATE < 4.0
    assert clip.word_ends is not None
    assert len(clip.word_ends) == 6
    assert list(clip.word_ends) == sorted(set(clip.word_ends))


def test_a_faster_voice_takes_less_time(flite: Flite) -> None:
    slow, fast = (
        len(flite.speak(TEXT, Voice("flite", "slt", rate=rate)).samples) for rate in (0.8, 1.3)
    )
    assert fast < 0.8 * slow


def test_a_voice_that_does_not_exist_is_named(flite: Flite) -> None:
    with pytest.raises(RecipeError, match="nobody"):
        flite.speak(TEXT, Voice("flite", "nobody"))
