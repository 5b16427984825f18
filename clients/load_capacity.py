"""How many sessions a server holds: whether one load held, and which to try next. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

RESOLUTION: Final = 0.05  # of the figure, or one session: finer than two runs of one load agree


@dataclass(frozen=True, slots=True)
class Limits:
    """What holding means."""

    p95_final_s: float = 0.5  # end of speech → final, beyond the endpoint silence
    max_age_s: float = 2.0  # of the newest partial while somebody speaks


def objections(level: Mapping[str, Any], limits: Limits) -> list[str]:
    """Why a load did not hold, in words; empty where it did. `level` is of `level_figures`."""
    latency = level["latency"]
    p95_s, age_s = latency["final_beyond_endpoint_s"]["p95"], latency["partial_age_s"]["max"]
    found = []
    if p95_s is None:
        found.append("no final was timed")
    elif p95_s > limits.p95_final_s:
        found.append(f"p95 of finals {p95_s * 1000:.0f} ms")
    if age_s is not None and age_s > limits.max_age_s:
        found.append(f"a partial {age_s:.1f} s old")
    for what in ("refused", "failed"):
        if level["outcomes"].get(what):
            found.append(f"{level['outcomes'][what]} of the sessions {what}")
    for what in ("missing_finals", "retractions"):
        if level[what]:
            found.append(f"{what.replace('_', ' ')}: {level[what]}")
    return found


class CapacitySearch:
    """Doubles from `first` until a load does not hold, then halves what is between.

    Tries at most `most` sessions. Ends with `capacity`: 0 where not one session held.
    """

    def __init__(self, first: int, most: int) -> None:
        self.capacity = 0  # the largest load that held
        self._most = most
        self._beyond: int | None = None  # the smallest that did not
        self._next = min(first, most)

    @property
    def next(self) -> int | None:
        """The load to try; None once the figure is known."""
        if self._beyond is None:
            return self._next if self.capacity < self._most else None
        apart = self._beyond - self.capacity
        return self._next if apart > max(1, int(self.capacity * RESOLUTION)) else None

    def tried(self, sessions: int, held: bool) -> None:
        """A load of `next` sessions held, or did not."""
        if held:
            self.capacity = sessions
        else:
            self._beyond = sessions
        if self._beyond is None:
            self._next = min(2 * self.capacity, self._most)
        else:
            self._next = (self.capacity + self._beyond) // 2
