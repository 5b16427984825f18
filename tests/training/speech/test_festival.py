import shutil
from collections.abc import Iterator

import pytest

from engine.audio.units import SAMPLE_RATE
from training.errors import RecipeError
from training.speech.festival import Festival
from training.speech.voices import Voice


@pytest.fixture
def festival() -> Iterator[Festival]:
    if shutil.which("festival") is None:
        pytest.skip("festival is not installed")
    running = Festival()
    yield running
    running.close()


def test_one_process_speaks_sentence_after_sentence(festival: Festival) -> None:
    voice = Voice("festival", "kal_diphone")
    for text in ("Hello there.", "How are you today, Alice?"):
        clip = festival.speak(text, voice)
        assert len(clip.samples) > SAMPLE_RATE / 2
        assert clip.word_ends is not None
        assert len(clip.word_ends) == len(text.split())


def test_a_voice_that_does_not_exist_is_an_error_and_no_wait(festival: Festival) -> None:
    festival.speak("Hello.", Voice("festival", "kal_diphone"))
    with pytest.raises(RecipeError, match="could not speak"):
        festival.speak("Hello.", Voice("festival", "nobody"))


def test_without_the_command_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RecipeError, match="expected the command"):
        Festival()
