import time

import torch

from engine.runtime.launched import Copied, Joined, Launched, Stopwatch
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import EncodeResult, StepResult

CPU = torch.device("cpu")


def launched(index: int, *, waits: bool = True) -> Launched:
    watch = Stopwatch(CPU)
    time.sleep(0.002)
    watch.stop()

    def read() -> StepResult:
        return EncodeResult((SlotHandle(index, 1),))

    return Launched(read, watch, waits=waits)


def test_a_copy_holds_what_its_source_was_when_it_was_made() -> None:
    source = torch.tensor([1, 2, 3])
    copied = Copied(source)
    source.zero_()
    assert copied.numpy().tolist() == [1, 2, 3]


def test_a_launched_step_gives_its_result_and_the_time_between_start_and_stop() -> None:
    step = launched(4)
    assert step.result() == EncodeResult((SlotHandle(4, 1),))
    seconds = step.seconds()
    assert seconds is not None
    assert seconds >= 0.002


def test_two_halves_are_one_step_in_their_order_and_take_the_time_of_both() -> None:
    halves = launched(2), launched(7, waits=False)
    whole = Joined(halves)
    assert whole.result() == EncodeResult((SlotHandle(2, 1), SlotHandle(7, 1)))
    seconds = whole.seconds()
    assert seconds is not None
    assert seconds >= 0.004
