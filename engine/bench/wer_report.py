"""What `starling bench wer` prints: tables for people, one JSON line at the end, a file of all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.bench.report import report
from engine.bench.wer import Comparison, Found
from engine.bench.wer_hearing import FINALS

TITLE = "bench wer"


def show(
    found: Found,
    invented: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    *,
    num_worst: int,
) -> None:
    """Print the worst recordings, all of them together by way, invented words, then each group.

    `invented` are the rows of `engine.bench.wer.invented`; they alone are reported where no
    recordings were heard. One of the two has rows.
    """
    rows, worst = found.rows(), found.worst(num_worst)
    told = dict(facts) | {
        "left_out": dict(found.left_out),
        "worst": [_brief(comparison) for comparison in worst],
    }
    if worst:
        Console().print(_worst_table(worst))
    if not rows:
        report(TITLE, invented, told, shown=[_readable(row) for row in invented])
        return
    _print_totals(found.totals())
    if invented:
        _print_table("invented words", invented)
    told["invented"] = list(invented)
    report(TITLE, rows, told, shown=[_readable(row) for row in _narrowed(turned(rows))])


def turned(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each copy and group, and the word error rates of all ways in it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        kept = {name: row[name] for name in ("audio", "group", "number", "words")}
        line = found.setdefault((row["audio"], row["group"]), kept)
        line[f"WER % {row['way'].replace(',', '')}"] = row["WER %"]
        if row["way"] == FINALS:
            line["flicker %"] = row["flicker %"]
    return list(found.values())


def write_details(comparisons: Sequence[Comparison], path: Path) -> None:
    """One JSON line for each recording in each way: what was said, what was heard, its errors."""
    lines = (json.dumps(it.as_json(), ensure_ascii=False) for it in comparisons)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _brief(comparison: Comparison) -> dict[str, Any]:
    return {
        "way": comparison.way,
        "audio": comparison.audio,
        "path": comparison.path,
        "WER %": comparison.percent,
        "said": comparison.said,
        "heard": comparison.heard,
    }


def _worst_table(worst: Sequence[Comparison]) -> Table:
    table = Table(title=f"worst: {worst[0].way}", show_lines=True)
    table.add_column("WER %", justify="right")
    for column in ("recording", "said", "heard"):
        table.add_column(column, overflow="fold")
    for it in worst:
        name = f"{Path(it.path).name}, {it.audio}"
        table.add_row(f"{it.percent:.1f}", *map(escape, (name, it.said, it.heard)))
    return table


def _print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*_readable(row).values())
    Console().print(table)


def _print_totals(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table for each copy, a column for each way."""
    for audio in dict.fromkeys(row["audio"] for row in rows):
        of_copy = [row for row in rows if row["audio"] == audio]
        figures = [name for name in of_copy[0] if name not in ("way", "audio", "group")]
        lines = [{"figure": name} | {row["way"]: row[name] for row in of_copy} for name in figures]
        _print_table(f"all recordings, {audio}", lines)


def _narrowed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For a terminal: sources without owner and commit, and copies only where there are some."""
    several = len({row["audio"] for row in rows}) > 1
    found = []
    for row in rows:
        shown = dict(row) if several else _without(row, "audio")
        shown["group"] = _short(row["group"])
        found.append(shown)
    return found


def _short(group: str) -> str:
    """`name` of a source that is written as `owner/name@commit`."""
    return group.rsplit("/", 1)[-1].split("@", 1)[0] or group


def _without(row: Mapping[str, Any], column: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != column}


def _readable(row: Mapping[str, Any]) -> dict[str, str]:
    """With one decimal, nothing where there is no figure, and no markup in what was heard."""
    return {
        name: f"{value:.1f}" if isinstance(value, float) else escape(str(value))
        for name, value in row.items()
    } | {name: "" for name, value in row.items() if value is None}
