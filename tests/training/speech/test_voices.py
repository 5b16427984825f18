from random import Random

import pytest

from training.errors import RecipeError
from training.speech.voices import ACCENTS, HELD_OUT_VARIANTS, VARIANTS, draw_voice

ALL = ("espeak", "flite", "festival")


def test_voices_are_of_every_engine_and_vary_in_rate_and_pitch() -> None:
    rng = Random(1)
    voices = [draw_voice(rng, ALL) for _ in range(2000)]
    assert {voice.engine for voice in voices} == set(ALL)
    assert len({voice.name for voice in voices if voice.engine == "espeak"}) > 200
    rates = [voice.rate for voice in voices]
    assert min(rates) < 0.8 < 1.2 < max(rates)


def test_a_held_out_voice_is_never_drawn_for_training() -> None:
    rng = Random(2)
    assert not set(HELD_OUT_VARIANTS) & set(VARIANTS)
    heard = {draw_voice(rng, ALL).name for _ in range(2000)}
    apart = {draw_voice(rng, ALL, held_out=True).name for _ in range(200)}
    assert not heard & apart
    assert all(name.split("+")[0] in ACCENTS for name in apart)


def test_without_espeak_held_out_voices_are_slower_than_any() -> None:
    rng = Random(3)
    slowest = min(draw_voice(rng, ["flite"]).rate for _ in range(500))
    assert all(draw_voice(rng, ["flite"], held_out=True).rate < slowest for _ in range(100))


def test_a_voice_names_its_engine() -> None:
    assert str(draw_voice(Random(4), ["festival"])) == "festival:kal_diphone"


def test_without_any_engine_there_is_no_voice() -> None:
    with pytest.raises(RecipeError, match="expected one of espeak"):
        draw_voice(Random(5), ["tones"])
