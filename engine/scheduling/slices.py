"""How many windows are encoded in one slice, so that nobody waits longer than a slice takes.

What a window costs is measured, not known: it depends on the device, the model, the context and,
because a batch is cheaper than its rows, on the batch itself.
"""

from typing import Final

from engine.audio.units import Positions

_WEIGHT: Final = 0.3  # of the newest measurement; a few slices and the figure has followed


class SliceMeter:
    """Rows that fit into `budget_s` of the device's time. Touched only by the engine thread.

    Before anything was measured, a slice holds `first` positions.
    """

    def __init__(self, budget_s: float, first: Positions, most_rows: int) -> None:
        self._budget_s = budget_s
        self._first = first
        self._most_rows = most_rows
        self._row_s: dict[Positions, float] = {}  # by context

    def rows(self, context: Positions) -> int:
        """How many windows of `context` positions a slice may hold; at least one."""
        row_s = self._row_s.get(context)
        if row_s is None and self._row_s:
            # The dearest position known: rather a slice too short than one too long.
            row_s = context * max(cost / known for known, cost in self._row_s.items())
        fitting = self._first // context if row_s is None else int(self._budget_s / row_s)
        return max(1, min(fitting, self._most_rows))

    def observe(self, context: Positions, num_rows: int, elapsed_s: float) -> None:
        """A slice of `num_rows` windows of `context` positions took `elapsed_s`."""
        if elapsed_s <= 0:
            return  # less than the clock can tell
        row_s = elapsed_s / num_rows
        before = self._row_s.get(context, row_s)
        # Dearer counts once a slice, cheaper once a row: a batch shows what single rows cannot,
        # and after a quiet hour of those the first burst should not be encoded by twos and threes.
        weight = _WEIGHT if row_s > before else 1 - (1 - _WEIGHT) ** num_rows
        self._row_s[context] = before + weight * (row_s - before)
