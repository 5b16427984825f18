"""The HTML report of a load test: one page without scripts, which needs nothing from anywhere.

Made of the JSON document alone, so that a report can be made again from a saved one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from clients.load_plots import plot_capacity, plot_distributions, plot_over_time
from clients.load_view import LATENCY_HEADINGS, counted, fact_rows, latency_rows, milliseconds

_NUMBER: Final = re.compile(r"-|-?\d+( ms)?")
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f24; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #d5dae0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f3f5f7; padding: .75rem; overflow-x: auto; white-space: pre-wrap; }
svg { max-width: 100%; height: auto; }
"""


def render(document: Mapping[str, Any]) -> str:
    """The page. Needs matplotlib."""
    levels: Sequence[Mapping[str, Any]] = document["levels"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Starling load test</title>',
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Starling load test</h1>",
        f"<p>{escape(_headline(document))}</p>",
        f"<pre>{escape(document['command'])}</pre>",
    ]
    capacity = plot_capacity(levels, document["limits"]) if document["limits"] else None
    if capacity is not None:
        parts += ["<h2>Capacity</h2>", capacity, _table(LEVEL_HEADINGS, level_rows(levels))]
    for level in levels:
        parts += _level(level)
    parts += ["<h2>Settings</h2>", f"<pre>{escape(json.dumps(_facts(document), indent=2))}</pre>"]
    return "\n".join([*parts, "</body></html>", ""])


LEVEL_HEADINGS: Final = ("sessions", "final p95", "oldest partial", "holds", "because of")


def level_rows(levels: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One row per load of a search for the capacity, in the order in which they ran."""
    return [
        [
            str(level["sessions"]),
            milliseconds(level["latency"]["final_beyond_endpoint_s"]["p95"]),
            milliseconds(level["latency"]["partial_age_s"]["max"]),
            "no" if level["objections"] else "yes",
            "; ".join(level["objections"]),
        ]
        for level in levels
    ]


def _headline(document: Mapping[str, Any]) -> str:
    about = f"Model {document['model']}, {document['environment']['began']}"
    if document["capacity"] is None:
        return f"{about}."
    return f"{about}. The server holds {counted(document['capacity'], 'session')}."


def _level(level: Mapping[str, Any]) -> list[str]:
    """A load's figures; a missing plot had nothing to show."""
    plots = (
        ("Latency distributions", plot_distributions(level)),
        ("Age of the newest partial over time", plot_over_time(level, "partial_age_s")),
        ("Finals over time", plot_over_time(level, "final_beyond_endpoint_s")),
    )
    parts = [f"<h2>{counted(level['sessions'], 'session')}</h2>"]
    parts.append(_table(LATENCY_HEADINGS, latency_rows(level)))
    for title, plot in plots:
        if plot is not None:
            parts += [f"<h3>{title}</h3>", plot]
    return [*parts, _table((), fact_rows(level))]


def _facts(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the page does not show otherwise."""
    return {name: document[name] for name in ("settings", "clips", "limits", "environment")}


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    cells = _figure if headings else _words
    body = "".join(f"<tr>{''.join(map(cells, row))}</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def _words(text: str) -> str:
    return f"<td>{escape(text)}</td>"


def _figure(text: str) -> str:
    """A number, or what stands in its place, is aligned to the right; words are not."""
    number = _NUMBER.fullmatch(text)
    return f'<td class="number">{escape(text)}</td>' if number else _words(text)
