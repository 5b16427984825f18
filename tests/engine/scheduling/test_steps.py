from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import DecodeStep, PrefillRow, PrefillStep, Sampling, Step, StepResult


def test_steps_are_values() -> None:
    slot = SlotHandle(0, 1)

    def step() -> PrefillStep:
        return PrefillStep((PrefillRow(slot, (1, 2), 0, Sampling(2, timestamps=False)),))

    assert step() == step()
    assert hash(step()) == hash(step())
    with pytest.raises(FrozenInstanceError):
        DecodeStep((slot,)).slots = ()  # type: ignore[misc]


def test_a_step_and_a_result_name_their_rows_or_slots() -> None:
    """Whoever fails or counts a step of any kind relies on it."""
    for kind in (*get_args(Step), *get_args(StepResult)):
        assert {"rows", "slots"} & set(kind.__dataclass_fields__), kind


def test_decoding_is_greedy_unless_said_otherwise() -> None:
    assert Sampling(begin=4, timestamps=True).temperature == 0.0
