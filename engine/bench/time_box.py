"""How long a table may take: what does not fit is left out, and named."""

from collections.abc import Callable
from math import inf
from time import perf_counter


class TimeBox:
    """Asked before each row of a table. Touched only by the thread that measures.

    A row that runs is never interrupted, so one is admitted only where the longest so far would
    still fit. The first always is: a table without rows says nothing.
    """

    def __init__(self, seconds: float = inf, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._row_began: float | None = None
        self._longest_row = 0.0
        self._left_out: list[str] = []

    @property
    def left_out(self) -> list[str]:
        """What was not measured, with the reason where it was not the time."""
        return list(self._left_out)

    def admits(self, row: str) -> bool:
        """Whether there is time for `row`; it is named in `left_out` where there is not."""
        now = self._clock()
        if self._row_began is not None:
            self._longest_row = max(self._longest_row, now - self._row_began)
        elif not self._left_out:
            self._row_began = now
            return True
        if now + self._longest_row > self._end:
            self._row_began = None
            self._left_out.append(row)
            return False
        self._row_began = now
        return True

    def leave_out(self, row: str, reason: str) -> None:
        """`row` could not be measured."""
        self._left_out.append(f"{row}: {reason}")
