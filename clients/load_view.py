"""How a load test looks while it runs and when it is over, in a terminal and in a pipe."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from clients.load_figures import percentile
from clients.load_meter import METRICS
from clients.load_processes import Progress

RECENT_S: Final = 10.0  # what "latest" means: a few dozen finals of a few dozen sessions
PLAIN_EVERY_S: Final = 5.0  # between lines in a pipe


class Board:
    """Adds up what the processes of one level tell. Readings of the clock are arguments."""

    def __init__(self, sessions: int, began: float) -> None:
        self._sessions = sessions
        self._began = began
        self._newest: dict[int, Progress] = {}
        self._finals: deque[tuple[float, float]] = deque()
        self._ages: deque[tuple[float, float]] = deque()

    def update(self, process: int, progress: Progress, now: float) -> None:
        """One process has told how it fares."""
        self._newest[process] = progress
        for kept, values in (
            (self._finals, progress.final_beyond_endpoint_s),
            (self._ages, progress.partial_age_s),
        ):
            kept.extend((now, value) for value in values)
            while kept and kept[0][0] < now - RECENT_S:
                kept.popleft()

    def cells(self, now: float) -> dict[str, str]:
        """What there is to see, by its heading."""
        told = self._newest.values()
        p95_s = percentile(sorted(value for _, value in self._finals), 0.95)
        return {
            "elapsed": f"{now - self._began:.0f} s",
            "open": f"{sum(it.num_open for it in told)} of {self._sessions}",
            "ended": str(sum(it.num_ended for it in told)),
            "finals": str(sum(it.num_finals for it in told)),
            "final p95": milliseconds(p95_s),
            "oldest partial": milliseconds(max((value for _, value in self._ages), default=None)),
            "failed": str(sum(it.num_failed for it in told)),
            "refused": str(sum(it.num_refused for it in told)),
        }


class LoadView:
    """Shows the level that runs: a live table on a terminal, now and then a line in a pipe.

    A context, as a live table has to be taken down again.
    """

    def __init__(self, out: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self.console = Console(file=out, highlight=False)
        self._now = now
        self._board = Board(0, now())
        self._title = ""
        self._shown = now()
        # Refreshed by hand: word from the processes is the only thing that changes the picture.
        self._live = (
            Live(console=self.console, auto_refresh=False, transient=True) if out.isatty() else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, sentence: str) -> None:
        """A line that stays."""
        self.console.print(sentence, soft_wrap=True, markup=False)

    def begin(self, sessions: int) -> None:
        """A level of so many sessions begins."""
        self._title = counted(sessions, "session")
        self._board = Board(sessions, self._now())
        self._shown = self._now()

    def progress(self, process: int, progress: Progress) -> None:
        """A generating process has told how it fares."""
        now = self._now()
        self._board.update(process, progress, now)
        cells = self._board.cells(now)
        if self._live is not None:
            table = Table(*cells, title=self._title)
            table.add_row(*cells.values())
            self._live.update(table, refresh=True)
        elif now - self._shown >= PLAIN_EVERY_S:
            self._shown = now
            self.note(", ".join(f"{heading} {cell}" for heading, cell in cells.items()))


def milliseconds(seconds: float | None) -> str:
    """A duration for people."""
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


def counted(number: int, what: str) -> str:
    """So many of something."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def share(value: float | None) -> str:
    """A share for people."""
    return "-" if value is None else f"{value * 100:.1f} %"


def latency_rows(level: Mapping[str, Any]) -> list[list[str]]:
    """What is measured, how often, and its percentiles."""
    rows = []
    for metric, meaning in METRICS.items():
        found = level["latency"][metric]
        shown = (milliseconds(found[name]) for name in ("p50", "p95", "p99", "max"))
        rows.append([meaning, str(found["count"]), *shown])
    return rows


LATENCY_HEADINGS: Final = ("latency", "count", "p50", "p95", "p99", "max")


def fact_rows(level: Mapping[str, Any]) -> list[list[str]]:
    """Everything else about a level, in words."""
    rows = [
        ["sessions", _counts(level["outcomes"])],
        ["errors", _counts(level["errors"])],
        ["refusals", _counts(level["refusals"]) + _retry(level["retry_after_s"])],
        ["warnings", _counts(level["warnings"]) + _slowest(level["slowest_interval_ms"])],
        ["audio", f"{level['audio_s']:.0f} s, {share(level['speech_share'])} speech as heard"],
        ["partials, finals", f"{level['partials']}, {level['finals']}"],
        ["finals lost", str(level["missing_finals"])],
        ["retractions of stable text", str(level["retractions"])],
        ["flicker", share(level["flicker"])],
    ]
    if level["word_errors"] is not None:
        rows += [
            [f"word errors, {name.replace('_', ' ')}", _rate(found)]
            for name, found in level["word_errors"].items()
            if name != "clips"
        ]
    rows += [
        [f"invented words in {where}", f"{found['words']} in {found['minutes']:.1f} min"]
        for where, found in level["invented"].items()
    ]
    rows += [
        [
            f"load process {number}",
            f"{share(process['cpu_share'])} of a core, chunks late p50 / p99 / max "
            f"{_ms(process, 'p50')} / {_ms(process, 'p99')} / {_ms(process, 'max')} ms, "
            f"{process['blocked_s']:.1f} s blocked",
        ]
        for number, process in enumerate(level["generator"], start=1)
    ]
    return rows


def print_summary(console: Console, level: Mapping[str, Any]) -> None:
    """The figures of one level as two tables."""
    latencies = Table(*LATENCY_HEADINGS, title=counted(level["sessions"], "session"))
    for column in latencies.columns[1:]:
        column.justify = "right"
    for row in latency_rows(level):
        latencies.add_row(*row)
    facts = Table(show_header=False)
    for row in fact_rows(level):
        facts.add_row(*row)
    console.print(latencies)
    console.print(facts)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "none"


def _retry(bounds: list[int] | None) -> str:
    if bounds is None:
        return ""
    low, high = bounds
    return f", Retry-After {low} s" if low == high else f", Retry-After {low} to {high} s"


def _slowest(interval_ms: int | None) -> str:
    return "" if interval_ms is None else f", partials every {interval_ms} ms at the slowest"


def _rate(found: Mapping[str, Any]) -> str:
    return f"{share(found['rate'])} of {counted(found['words'], 'word')}"


def _ms(process: Mapping[str, Any], name: str) -> str:
    late_ms = process["late_ms"][name]
    return "-" if late_ms is None else str(late_ms)
