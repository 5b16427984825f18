import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from engine.scheduling.slots import SlotHandle, SlotPool


class SlotMachine(RuleBasedStateMachine):
    """Free and held rows are all rows; a released handle is never live again."""

    held = Bundle("held")
    released = Bundle("released")

    @initialize(num_slots=st.integers(1, 4))
    def begin(self, num_slots: int) -> None:
        self.pool = SlotPool(num_slots)
        self.live: set[SlotHandle] = set()
        self.ever: set[SlotHandle] = set()

    @rule(target=held)
    def acquire(self) -> SlotHandle | None:
        handle = self.pool.acquire()
        assert (handle is None) == (len(self.live) == self.pool.num_slots)
        if handle is not None:
            assert handle not in self.ever
            assert handle.index not in {other.index for other in self.live}
            self.live.add(handle)
            self.ever.add(handle)
        return handle

    @rule(target=released, handle=consumes(held))
    def release(self, handle: SlotHandle | None) -> SlotHandle | None:
        if handle is not None:
            self.pool.release(handle)
            self.live.remove(handle)
        return handle

    @rule(handle=released)
    def release_again(self, handle: SlotHandle | None) -> None:
        if handle is not None:
            with pytest.raises(ValueError, match="is not live"):
                self.pool.release(handle)

    @invariant()
    def free_and_held_are_all(self) -> None:
        if hasattr(self, "pool"):
            assert self.pool.num_free + len(self.live) == self.pool.num_slots
            self.pool.check()


SlotMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
test_slots_are_conserved_and_handles_die_once = SlotMachine.TestCase


def test_a_pool_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="num_slots: got 0, the least accepted is 1"):
        SlotPool(0)


def test_a_handle_of_nobody_cannot_be_released() -> None:
    pool = SlotPool(2)
    with pytest.raises(ValueError, match="is not live"):
        pool.release(SlotHandle(0, 0))


def test_a_lost_slot_is_noticed() -> None:
    pool = SlotPool(2)
    pool._free.pop()
    with pytest.raises(AssertionError, match="slots lost or doubled"):
        pool.check()
