import json
import re
from pathlib import Path

import pytest

from engine.audio.units import MAX_WINDOW_SAMPLES, SAMPLE_RATE
from engine.errors import CheckpointError
from engine.traits import CheckpointTraits

WHERE = "config.json: starling"
EMBEDDED = Path(__file__).parents[2] / "engine" / "embedded" / "config.json"


def test_a_checkpoint_that_says_nothing_is_whisper_as_published() -> None:
    published = CheckpointTraits(False, MAX_WINDOW_SAMPLES, True)
    assert CheckpointTraits.from_config(None, WHERE) == published
    assert CheckpointTraits.from_config({}, WHERE) == published


def test_what_a_checkpoint_says_is_taken() -> None:
    said = {
        "trimmed_context": True,
        "max_window_s": 12.5,
        "carries_text": False,
        "timestamps": False,
        "incremental_partials": True,
    }
    traits = CheckpointTraits.from_config(said, WHERE)
    assert traits.trimmed_context
    assert not traits.carries_text
    assert not traits.timestamps
    assert traits.incremental_partials
    assert traits.max_window == 12.5 * SAMPLE_RATE


def test_the_shortest_and_the_longest_window_are_taken() -> None:
    assert CheckpointTraits.from_config({"max_window_s": 2}, WHERE).max_window == 2 * SAMPLE_RATE
    longest = CheckpointTraits.from_config({"max_window_s": 30}, WHERE).max_window
    assert longest == MAX_WINDOW_SAMPLES


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("trimmed", f"{WHERE}: expected an object with keys of trimmed_context, .* 'trimmed'"),
        ({"trimmed": True}, f"{WHERE}: expected an object with keys of .* found .*'trimmed'"),
        ({"trimmed_context": 1}, f"{WHERE}.trimmed_context: expected true or false, found 1"),
        ({"carries_text": "no"}, f"{WHERE}.carries_text: expected true or false, found 'no'"),
        ({"max_window_s": 1.9}, f"{WHERE}.max_window_s: expected 2 to 30, found 1.9"),
        ({"max_window_s": 31}, f"{WHERE}.max_window_s: expected 2 to 30, found 31"),
        ({"max_window_s": True}, f"{WHERE}.max_window_s: expected 2 to 30, found True"),
        ({"max_window_s": "10"}, f"{WHERE}.max_window_s: expected 2 to 30, found '10'"),
        ({"max_window_s": float("nan")}, f"{WHERE}.max_window_s: expected 2 to 30, found nan"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(said: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=re.compile(message)):
        CheckpointTraits.from_config(said, WHERE)


def test_the_embedded_checkpoint_says_how_it_was_trained() -> None:
    said = json.loads(EMBEDDED.read_text())["starling"]
    assert CheckpointTraits.from_config(said, WHERE).trimmed_context
