"""A clock that goes on as real time does, and skips what nothing happens in."""

from collections.abc import Callable
from time import perf_counter


class VirtualClock:
    """Seconds that go on as `read`'s do, but for those that were skipped.

    Touched only by the thread that measures.
    """

    def __init__(self, read: Callable[[], float] = perf_counter) -> None:
        self._read = read
        self.skipped = 0.0

    def __call__(self) -> float:
        """The reading; never goes back."""
        return self._read() + self.skipped

    def skip_to(self, reading: float) -> None:
        """Nothing happens until `reading`."""
        self.skipped += max(0.0, reading - self())
