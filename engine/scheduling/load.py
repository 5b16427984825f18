"""Decides how often each utterance gets a partial when there is not time for all of them.

Finals come first and are never touched. What they leave of the device is for the utterances in
which somebody speaks: first all intervals are widened alike, and where that would make partials
older than is promised, the windows that cost most are refreshed less often than the others.
docs/overload.md describes the whole ladder, of which this is the lower part.

Pure: the clock's readings are arguments, in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import exp
from typing import Final

# Of the device's time, for finals and partials together: finals go first anyway, and the rest is
# for what is not foreseen. With 0.75 finals gained nothing and partials were too old (docs/log.md).
TARGET_UTILISATION: Final = 0.9
LEAST_PARTIAL_SHARE: Final = 0.05  # finals alone fill the device: partials still move
PROMISED_INTERVAL_S: Final = 1.6  # with its decoding, a partial is then less than 2 s old
LONGEST_INTERVAL_S: Final = 10.0  # of anybody: a sign of life
SMOOTHING_S: Final = 3.0  # time constant of what is measured: a few sentences of many people
LEAST_OBSERVED_S: Final = 0.5  # before that much of the clock was seen, nothing is known
LEAST_PARTIALS: Final = 10  # so many are remembered however long ago they were
LONG_SMOOTHING_S: Final = 30.0  # for what one session costs, which changes with who speaks
LEAST_SPEECH_S: Final = 20.0  # a few sentences; less says little about what speech costs


class Rung(IntEnum):
    """How far service is degraded; the server's refusals are the rung above these."""

    AS_ASKED = 0
    WIDENED = 1
    UNEQUAL = 2


@dataclass(frozen=True, slots=True)
class Ask:
    """What one utterance wants: a partial of `cost_s` device seconds every `interval_s`."""

    cost_s: float
    interval_s: float


@dataclass(frozen=True, slots=True)
class Shares:
    """The interval in force for every ask, in their order, and the rung that this is."""

    intervals_s: tuple[float, ...]
    rung: Rung


def share_out(asks: Sequence[Ask], share: float) -> Shares:
    """Intervals under which all partials together take at most `share` of the device's time.

    But for those at the longest interval, which have theirs in any case.
    """
    if sum(ask.cost_s / ask.interval_s for ask in asks) <= share:
        return Shares(tuple(ask.interval_s for ask in asks), Rung.AS_ASKED)
    common = _common_interval(asks, share)
    if common <= PROMISED_INTERVAL_S:
        return Shares(tuple(max(ask.interval_s, common) for ask in asks), Rung.WIDENED)
    # Equal shares of the device, which are equal waits for windows of equal length. Short ones,
    # whose speakers wait for their first words, stay within what is promised for longest.
    promised = [max(ask.interval_s, PROMISED_INTERVAL_S) for ask in asks]
    wanted = [ask.cost_s / interval for ask, interval in zip(asks, promised, strict=True)]
    each = _equal_share(wanted, share)
    intervals = (
        max(interval, min(ask.cost_s / each, LONGEST_INTERVAL_S))
        for ask, interval in zip(asks, promised, strict=True)
    )
    return Shares(tuple(intervals), Rung.UNEQUAL)


def _common_interval(asks: Sequence[Ask], share: float) -> float:
    """The shortest that keeps the share where nobody's interval is shorter, unless asked longer."""
    in_order = sorted(asks, key=lambda ask: ask.interval_s)
    left = share - sum(ask.cost_s / ask.interval_s for ask in in_order)
    cost_s = 0.0
    for ask, following in zip(in_order, [*in_order[1:], None], strict=True):
        left += ask.cost_s / ask.interval_s  # no longer as asked, but at the common interval
        cost_s += ask.cost_s
        if left > 0 and (following is None or cost_s / left <= following.interval_s):
            return cost_s / left
    raise AssertionError(f"no interval keeps {asks} to {share}")


def _equal_share(wanted: Sequence[float], share: float) -> float:
    """The most that any may have so that all together have `share` (max-min fairness)."""
    left = share
    for served, want in enumerate(sorted(wanted)):
        each = left / (len(wanted) - served)
        if want > each:
            return each
        left -= want
    return left  # not reached where the wanted exceed the share


class LoadMeter:
    """What the device's time goes to, as moving averages. Touched only by the engine thread."""

    def __init__(self) -> None:
        self._at: float | None = None
        # What was seen lately, and less of what was seen before.
        self._observed_s = 0.0
        self._final_s = 0.0
        self._partial_s = 0.0
        self._partial_positions = 0.0
        self._num_partials = 0.0
        # The same, remembered for longer.
        self._long_final_s = 0.0
        self._long_speech_s = 0.0

    def advance(self, now: float) -> None:
        """The clock reads `now`: what was measured before counts less."""
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now if self._at is None else max(now, self._at)
        kept = exp(-passed / SMOOTHING_S)
        self._observed_s = self._observed_s * kept + passed
        self._final_s *= kept
        if self._num_partials > 0:
            # The cost of a partial outlives hours in which nobody spoke.
            kept = max(kept, min(1.0, LEAST_PARTIALS / self._num_partials))
            self._partial_s *= kept
            self._partial_positions *= kept
            self._num_partials *= kept
        kept = exp(-passed / LONG_SMOOTHING_S)
        if self._long_speech_s > 0:
            kept = max(kept, min(1.0, LEAST_SPEECH_S / self._long_speech_s))
        self._long_final_s *= kept
        self._long_speech_s *= kept

    def hear(self, seconds: float) -> None:
        """Speech that arrived."""
        self._long_speech_s += seconds

    def begin_partial(self, positions: int) -> None:
        """A partial over that many encoder positions."""
        self._partial_positions += positions
        self._num_partials += 1

    def spend_on_final(self, seconds: float) -> None:
        """Device time for finals, cuts and early finals."""
        self._final_s += seconds
        self._long_final_s += seconds

    def spend_on_partial(self, seconds: float) -> None:
        """Device time for partials."""
        self._partial_s += seconds

    @property
    def partial_share(self) -> float:
        """What the finals leave for partials, as a share of the device's time."""
        if self._observed_s < LEAST_OBSERVED_S:
            return TARGET_UTILISATION
        left = TARGET_UTILISATION - self._final_s / self._observed_s
        return max(LEAST_PARTIAL_SHARE, left)

    @property
    def s_per_position(self) -> float:
        """Device seconds that a partial takes for each position of its window."""
        return self._partial_s / self._partial_positions if self._partial_positions else 0.0

    @property
    def s_per_speech_s(self) -> float:
        """Device seconds that each second of speech takes at the least that is promised.

        That is its finals, and partials at the promised interval. 0 before enough was heard.
        """
        if self._long_speech_s < LEAST_SPEECH_S:
            return 0.0
        partial_s = self._partial_s / self._num_partials if self._num_partials else 0.0
        return self._long_final_s / self._long_speech_s + partial_s / PROMISED_INTERVAL_S
