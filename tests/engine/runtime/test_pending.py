from engine.runtime.pending import Done, Pending
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import EncodeResult


def test_a_step_that_is_over_gives_its_result_and_its_time_again_and_again() -> None:
    result = EncodeResult((SlotHandle(1, 2),))
    pending: Pending = Done(result, 0.25)
    for _ in range(2):
        assert pending.result() is result
        assert pending.seconds() == 0.25
