"""Slots: rows of every per-utterance device tensor, handed out and taken back."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlotHandle:
    """One use of one row: a released handle is never live again, so a late result finds nobody."""

    index: int
    generation: int


class SlotPool:
    """Free and held rows, 0 to `num_slots` - 1. Touched only by the engine thread."""

    def __init__(self, num_slots: int) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots: got {num_slots}, the least accepted is 1")
        self._free = list(range(num_slots - 1, -1, -1))
        self._generations = [0] * num_slots
        self._held: set[SlotHandle] = set()

    @property
    def num_slots(self) -> int:
        """Rows in all."""
        return len(self._generations)

    @property
    def num_free(self) -> int:
        """Rows nobody holds."""
        return len(self._free)

    def acquire(self) -> SlotHandle | None:
        """A free row under a new generation, or None."""
        if not self._free:
            return None
        index = self._free.pop()
        self._generations[index] += 1
        handle = SlotHandle(index, self._generations[index])
        self._held.add(handle)
        return handle

    def release(self, handle: SlotHandle) -> None:
        """Take a row back; a handle that is not live is a mistake of the caller."""
        if handle not in self._held:
            raise ValueError(f"{handle} is not live")
        self._held.remove(handle)
        self._free.append(handle.index)

    def check(self) -> None:
        """Free and held rows are all rows, each once."""
        indices = sorted([*self._free, *(handle.index for handle in self._held)])
        if indices != list(range(self.num_slots)):
            raise AssertionError(f"slots lost or doubled: {indices} of {self.num_slots}")
