from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from itertools import combinations
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import Positions
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import (
    AlignResult,
    AlignRow,
    AlignStep,
    BoundaryRow,
    DecodeStep,
    EncodeResult,
    EncodeRow,
    EncodeStep,
    ExtendRow,
    ExtendStep,
    LanguageRow,
    PrefillRow,
    PrefillStep,
    Sampling,
    Step,
    StepResult,
    TokenRow,
    TokensResult,
    VerifyRow,
    VerifyStep,
    halve,
    join,
    slots_of,
)

GREEDY = Sampling(2, timestamps=False)
WINDOW = np.zeros(160, np.float32)

# A step of each kind for some slots; what is not its rows differs from the default.
STEPS: dict[type[Step], Callable[[tuple[SlotHandle, ...]], Step]] = {
    EncodeStep: lambda slots: EncodeStep(
        tuple(EncodeRow(slot, WINDOW) for slot in slots), Positions(96), keep=True
    ),
    ExtendStep: lambda slots: ExtendStep(
        tuple(ExtendRow(slot, WINDOW, Positions(40)) for slot in slots), Positions(128)
    ),
    PrefillStep: lambda slots: PrefillStep(
        tuple(PrefillRow(slot, (1, 2), 0, GREEDY) for slot in slots)
    ),
    VerifyStep: lambda slots: VerifyStep(
        tuple(VerifyRow(slot, 3, (1,), (2,), 0, GREEDY) for slot in slots)
    ),
    DecodeStep: DecodeStep,
    AlignStep: lambda slots: AlignStep(
        tuple(AlignRow(slot, (1, 2, 3), 1, Positions(9)) for slot in slots)
    ),
}
RESULTS: dict[type[StepResult], Callable[[tuple[SlotHandle, ...]], StepResult]] = {
    EncodeResult: EncodeResult,
    TokensResult: lambda slots: TokensResult(
        tuple(
            TokenRow(slot, (5,), (-0.5,), ()) if slot.index % 2 else LanguageRow(slot, 7, 0.9)
            for slot in slots
        )
    ),
    AlignResult: lambda slots: AlignResult(tuple(BoundaryRow(slot, (0, 4)) for slot in slots)),
}


def handles(count: int, first: int = 0) -> tuple[SlotHandle, ...]:
    return tuple(SlotHandle(first + number, 1) for number in range(count))


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


def test_there_is_one_of_every_kind_to_be_tested() -> None:
    assert set(STEPS) == set(get_args(Step))
    assert set(RESULTS) == set(get_args(StepResult))


@pytest.mark.parametrize("kind", STEPS)
@given(count=st.integers(0, 9))
def test_a_step_s_slots_are_those_of_its_rows_in_order(kind: type[Step], count: int) -> None:
    slots = handles(count)
    assert slots_of(STEPS[kind](slots)) == slots


@pytest.mark.parametrize("kind", STEPS)
@given(count=st.integers(2, 9))
def test_halves_hold_all_rows_in_order_and_do_the_same_with_them(
    kind: type[Step], count: int
) -> None:
    step = STEPS[kind](handles(count))
    halves = halve(step)
    assert halves is not None
    first, second = halves
    slots = slots_of(first), slots_of(second)
    assert slots[0] + slots[1] == handles(count)
    assert abs(len(slots[0]) - len(slots[1])) <= 1
    for half, its in zip(halves, slots, strict=True):
        assert type(half) is kind
        assert [getattr(half, field.name) for field in fields(half)] == [
            getattr(STEPS[kind](its), field.name) for field in fields(half)
        ]


@pytest.mark.parametrize("kind", STEPS)
def test_a_single_row_has_no_halves(kind: type[Step]) -> None:
    assert halve(STEPS[kind](handles(1))) is None


@pytest.mark.parametrize("kind", RESULTS)
@given(sizes=st.tuples(st.integers(0, 4), st.integers(0, 4)))
def test_joined_results_are_those_of_the_step_before_it_was_halved(
    kind: type[StepResult], sizes: tuple[int, int]
) -> None:
    result = RESULTS[kind]
    first, second = handles(sizes[0]), handles(sizes[1], first=sizes[0])
    assert join(result(first), result(second)) == result(handles(sum(sizes)))


@pytest.mark.parametrize(("one", "other"), list(combinations(RESULTS, 2)))
def test_results_of_two_kinds_are_not_joined(
    one: type[StepResult], other: type[StepResult]
) -> None:
    for first, second in ((one, other), (other, one)):
        with pytest.raises(ValueError, match=f"{first.__name__} and {second.__name__} are of two"):
            join(RESULTS[first](handles(1)), RESULTS[second](handles(1)))


def test_extensions_are_values_that_say_where_each_window_goes_on() -> None:
    row = ExtendRow(SlotHandle(0, 1), WINDOW, Positions(30))
    step = ExtendStep((row,), Positions(64))
    assert step.rows[0].start == 30
    with pytest.raises(FrozenInstanceError):
        row.start = Positions(0)  # type: ignore[misc]
