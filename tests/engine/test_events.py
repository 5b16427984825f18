from dataclasses import fields
from typing import get_args

from engine.audio.units import MAX_WINDOW_SAMPLES
from engine.events import Command, EngineEvent, UtteranceOptions


def test_every_command_and_event_names_its_utterance_first() -> None:
    """A worker routes them by it without knowing their kind."""
    for kind in (*get_args(Command), *get_args(EngineEvent)):
        assert fields(kind)[0].name == "utterance_id", kind


def test_the_longest_segment_leaves_room_in_the_window() -> None:
    assert 0 < UtteranceOptions().max_segment < MAX_WINDOW_SAMPLES


def test_options_are_values() -> None:
    assert UtteranceOptions(language="en") == UtteranceOptions(language="en")
    assert hash(UtteranceOptions()) == hash(UtteranceOptions())
