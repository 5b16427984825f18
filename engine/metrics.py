"""What the engine counts, as plain numbers; whoever exports them reads, nobody else writes.

A reader on another thread may see a figure one event older than its neighbour, never a wrong one:
each number is written by one thread and only ever grows, gauges apart.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

# Upper bounds in seconds. Three to a decade, as far as the thing may sensibly go: a step takes
# 0.3 ms on a GPU and seconds for a full context on two cores.
STEP_BOUNDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
WAIT_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
JOB_KINDS: Final = ("final", "cut", "early", "partial")  # of `scheduling.job.Kind`, in their order


@dataclass(slots=True)
class Histogram:
    """How often a value fell into each bucket, and the sum of the values.

    `bounds` ascend and are inclusive; one bucket more holds what lies above the last.
    """

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """Values observed."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[int]:
        """How many values were at most each bound; the last entry is all of them."""
        return list(accumulate(self.counts))


@dataclass(slots=True)
class StepMetrics:
    """Steps of one kind, or calls of anything else that takes rows and time."""

    rows: int = 0
    durations: Histogram = field(default_factory=lambda: Histogram(STEP_BOUNDS))

    @property
    def count(self) -> int:
        """Steps."""
        return self.durations.count

    @property
    def seconds(self) -> float:
        """Time of them all."""
        return self.durations.sum

    def record(self, rows: int, seconds: float) -> None:
        """Count one step."""
        self.rows += rows
        self.durations.observe(seconds)


@dataclass(slots=True)
class EngineMetrics:
    """Totals since the engine started. Written only by the engine thread.

    `device`, `dtype` and `slots` (utterances at work at once) say where it runs. `steps` is keyed
    by the step's type, `waits` by the kind of job: the time from wanting a job to its encode
    step. The four behind them are how things are now: utterances open; the rung of
    scheduling.load's ladder; the widest interval of partials in force, 0 while all have what they
    asked for; the device's seconds that a second of speech takes at the least that is promised, 0
    while unknown.
    """

    device: str = ""
    dtype: str = ""
    slots: int = 0
    steps: dict[str, StepMetrics] = field(default_factory=dict)
    waits: dict[str, Histogram] = field(
        default_factory=lambda: {kind: Histogram(WAIT_BOUNDS) for kind in JOB_KINDS}
    )
    utterances: int = 0
    rung: int = 0
    partial_interval_s: float = 0.0
    s_per_speech_s: float = 0.0
    tokens: int = 0  # of hypotheses, forced prefixes not counted
    drafted: int = 0
    accepted: int = 0
    partials: int = 0
    finals: int = 0
    retries: int = 0
    failures: int = 0

    def record_step(self, kind: str, rows: int, seconds: float) -> None:
        """Count one step."""
        self.steps.setdefault(kind, StepMetrics()).record(rows, seconds)

    def record_wait(self, kind: str, seconds: float) -> None:
        """A job of that kind, one of JOB_KINDS, waited so long for its encode step."""
        self.waits[kind].observe(seconds)
