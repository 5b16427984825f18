import pytest

from engine.audio.units import SAMPLE_RATE
from tests.support.synthesisers import needs_espeak
from training.errors import RecipeError
from training.speech.espeak import Espeak, word_ends
from training.speech.voices import ACCENTS, HELD_OUT_VARIANTS, VARIANTS, Voice

TEXT = "Hello there, how are you today?"


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    needs_espeak()
    return Espeak()


def test_a_sentence_is_spoken_and_its_words_end_in_order(espeak: Espeak) -> None:
    clip = espeak.speak(TEXT, Voice("espeak", "en-us+f3"))
    assert 1.0 < len(clip.samples) / SAMPLE_RATE < 4.0
    assert clip.word_ends is not None
    assert len(clip.word_ends) == 6
    assert list(clip.word_ends) == sorted(set(clip.word_ends))
    assert clip.word_ends[-1] == len(clip.samples)


def test_a_faster_voice_takes_less_time(espeak: Espeak) -> None:
    slow, fast = (
        len(espeak.speak(TEXT, Voice("espeak", "en-us", rate=rate)).samples) for rate in (0.8, 1.3)
    )
    assert fast < 0.8 * slow


def test_every_voice_that_is_drawn_exists(espeak: Espeak) -> None:
    for accent in set(ACCENTS):
        espeak.speak("a", Voice("espeak", accent))
    for variant in (*VARIANTS, *HELD_OUT_VARIANTS):
        espeak.speak("a", Voice("espeak", f"en-us+{variant}"))


def test_a_voice_that_does_not_exist_is_named(espeak: Espeak) -> None:
    with pytest.raises(RecipeError, match="en-nowhere"):
        espeak.speak("a", Voice("espeak", "en-nowhere"))


def test_a_word_ends_where_the_next_begins() -> None:
    assert word_ends("a well-known lamp", [(0, 5), (2, 40), (7, 60), (13, 90)], 200) == (
        *(40, 90, 200),
    )


def test_where_a_word_has_no_start_nobody_knows_the_ends() -> None:
    assert word_ends("in the house", [(0, 5), (7, 90)], 200) is None
    assert word_ends("in the house", [(0, 5), (3, 95), (7, 90)], 200) is None
