import io
import re

import pytest
from rich.console import Console

from clients.load_meter import METRICS
from clients.load_processes import Progress
from clients.load_view import (
    PLAIN_EVERY_S,
    RECENT_S,
    Board,
    LoadView,
    fact_rows,
    latency_rows,
    milliseconds,
    print_summary,
    share,
)
from tests.support.load_levels import small_level


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_what_processes_tell_is_added_up() -> None:
    board = Board(8, began=100.0)
    board.update(0, Progress(num_open=1, num_finals=1), 101.0)
    board.update(
        0,
        Progress(2, 1, 1, 0, 5, final_beyond_endpoint_s=(0.1, 0.3), partial_age_s=(1.25,)),
        102.0,
    )
    board.update(1, Progress(3, 2, 0, 2, 7), 103.0)
    assert board.cells(103.0) == {
        "elapsed": "3 s",
        "open": "5 of 8",
        "ended": "3",
        "finals": "12",
        "final p95": "290 ms",
        "oldest partial": "1250 ms",
        "failed": "1",
        "refused": "2",
    }


def test_percentiles_are_of_the_newest_seconds() -> None:
    board = Board(1, began=0.0)
    board.update(0, Progress(final_beyond_endpoint_s=(9.0,), partial_age_s=(9.0,)), 1.0)
    board.update(0, Progress(final_beyond_endpoint_s=(0.2,)), 1.0 + RECENT_S + 0.1)
    cells = board.cells(12.0)
    assert (cells["final p95"], cells["oldest partial"]) == ("200 ms", "-")


def test_a_pipe_gets_a_line_now_and_then() -> None:
    out, clock = io.StringIO(), Clock()
    with LoadView(out, clock) as view:
        view.begin(3)
        for _ in range(11):
            clock.now_s += PLAIN_EVERY_S / 5
            view.progress(0, Progress(num_open=3))
    lines = out.getvalue().splitlines()
    assert [line.split(", ")[:2] for line in lines] == [
        ["elapsed 5 s", "open 3 of 3"],
        ["elapsed 10 s", "open 3 of 3"],
    ]


def test_a_terminal_gets_a_table_that_is_taken_down_again() -> None:
    out = Terminal()
    with LoadView(out, Clock()) as view:
        view.begin(1)
        view.progress(0, Progress(num_open=1, partial_age_s=(0.5,)))
        view.note("a line that [stays]")
    shown = out.getvalue()
    assert "1 session" in shown
    assert "500 ms" in shown
    assert "a line that [stays]" in shown
    assert "\x1b[?25h" in shown  # the cursor is back


def test_what_is_not_known_is_a_dash() -> None:
    assert (milliseconds(None), milliseconds(0.0125)) == ("-", "12 ms")
    assert (share(None), share(0.0366)) == ("-", "3.7 %")


def test_every_metric_has_its_row_of_percentiles() -> None:
    rows = latency_rows(small_level())
    assert [row[0] for row in rows] == list(METRICS.values())
    assert rows[list(METRICS).index("final_s")] == [
        "end of speech → final",
        "2",
        "500 ms",
        "725 ms",
        "745 ms",
        "750 ms",
    ]


def test_everything_else_is_told_in_words() -> None:
    facts = dict(fact_rows(small_level()))
    assert facts["sessions"] == "1 done, 1 refused"
    assert facts["errors"] == "none"
    assert facts["refusals"] == "1 HTTP 503, Retry-After 1 s"
    assert facts["warnings"] == "2 lagging, partials every 800 ms at the slowest"
    assert facts["word errors, live to transcript"] == "50.0 % of 2 words"
    assert facts["word errors, live to unloaded"] == "0.0 % of 2 words"
    assert facts["invented words in pauses"] == "0 in 0.1 min"
    assert facts["load process 1"] == (
        "15.0 % of a core, chunks late p50 / p99 / max 5 / 5 / 5 ms, 0.0 s blocked"
    )
    without = dict(fact_rows(small_level() | {"word_errors": None, "retry_after_s": [1, 4]}))
    assert not any(name.startswith("word errors") for name in without)
    assert without["refusals"].endswith("Retry-After 1 to 4 s")


@pytest.mark.parametrize("width", [60, 120])
def test_the_summary_prints_both_tables(width: int) -> None:
    out = io.StringIO()
    print_summary(Console(file=out, width=width), small_level())
    printed = re.sub(r"\s+", " ", out.getvalue())
    assert "stop → done" in printed
    assert "retractions of stable" in printed
