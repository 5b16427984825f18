from random import Random

import pytest

from training.errors import RecipeError
from training.speech.voices import (
    ACCENTS,
    HELD_OUT_KOKORO_VOICES,
    HELD_OUT_VARIANTS,
    KOKORO_VOICES,
    VARIANTS,
    Voice,
    draw_voice,
)

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


def test_half_is_spoken_by_kokoro_half_of_it_by_blends_of_two() -> None:
    rng = Random(6)
    voices = [draw_voice(rng, (*ALL, "kokoro")) for _ in range(4000)]
    assert {voice.engine for voice in voices} == {*ALL, "kokoro"}
    neural = [voice for voice in voices if voice.engine == "kokoro"]
    assert len(neural) / len(voices) == pytest.approx(0.5, abs=0.05)
    names = [voice.name.split("+") for voice in neural]
    assert all(len(set(pair)) == len(pair) <= 2 for pair in names)
    assert sum(len(pair) == 2 for pair in names) / len(names) == pytest.approx(0.5, abs=0.05)
    assert {name for pair in names for name in pair} == set(KOKORO_VOICES)


def test_two_voices_of_kokoro_are_never_drawn_for_training_nor_blended() -> None:
    rng = Random(7)
    assert len({*KOKORO_VOICES, *HELD_OUT_KOKORO_VOICES}) == 28
    heard = {name for _ in range(2000) for name in draw_voice(rng, ["kokoro"]).name.split("+")}
    apart = {draw_voice(rng, ["flite", "kokoro"], held_out=True) for _ in range(50)}
    assert not heard & set(HELD_OUT_KOKORO_VOICES)
    assert {voice.name for voice in apart} == set(HELD_OUT_KOKORO_VOICES)
    assert {voice.engine for voice in apart} == {"kokoro"}


def test_held_out_voices_are_of_espeak_and_kokoro_where_both_are() -> None:
    rng = Random(8)
    engines = [draw_voice(rng, (*ALL, "kokoro"), held_out=True).engine for _ in range(1000)]
    assert set(engines) == {"espeak", "kokoro"}
    assert engines.count("kokoro") / len(engines) == pytest.approx(0.5, abs=0.05)


def test_where_kokoro_is_not_installed_voices_are_what_they_were() -> None:
    assert draw_voice(Random(9), ALL) == Voice(
        "flite", "slt", 0.9553215622672732, 0.8623427356315049
    )
    assert draw_voice(Random(9), ALL, held_out=True) == Voice(
        "espeak", "en-gb-scotland+linda", 0.9068537686423642, 0.8744579817848261
    )


def test_a_voice_names_its_engine() -> None:
    assert str(draw_voice(Random(4), ["festival"])) == "festival:kal_diphone"


def test_without_any_engine_there_is_no_voice() -> None:
    with pytest.raises(RecipeError, match="expected one of espeak"):
        draw_voice(Random(5), ["tones"])
