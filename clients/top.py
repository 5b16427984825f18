"""`starling top`: what a server is doing, live in the terminal, from its `/metrics`.

Reads and shows; what the readings mean is `top_figures`'.
"""

import argparse
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from math import inf
from typing import Final
from urllib.parse import urlsplit

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clients.top_figures import (
    PERCENTILES,
    Figures,
    Percentiles,
    Scrape,
    ScrapeError,
    figures_between,
    read_scrape,
)
from stream_server.protocol import DEFAULT_PORT

DEFAULT_URL: Final = f"http://127.0.0.1:{DEFAULT_PORT}"
INTERVAL_S: Final = 2.0  # short enough to follow, long enough for a rate to mean something
TIMEOUT_S: Final = 5.0  # a server that answers later has stalled, and that is to be said
_SCHEMES: Final = {"ws": "http", "wss": "https", "http": "http", "https": "https"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    parser.add_argument(
        "--url", type=_metrics_url, default=DEFAULT_URL, help="default: %(default)s"
    )
    parser.add_argument(
        "--interval",
        type=_positive,
        default=INTERVAL_S,
        metavar="S",
        help="seconds between two readings; default: %(default)g",
    )
    parser.add_argument("--once", action="store_true", help="print one view and end")


def run(args: argparse.Namespace) -> int:
    """Show until Ctrl-C; 1 where the server cannot be read."""
    console = Console(highlight=False)
    try:
        before = scrape(args.url)
        if args.once:
            time.sleep(args.interval)
            console.print(view(figures_between(before, scrape(args.url))))
            return 0
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                time.sleep(args.interval)
                after = scrape(args.url)
                live.update(view(figures_between(before, after)), refresh=True)
                before = after
    except KeyboardInterrupt:
        return 0
    except (OSError, ScrapeError) as exc:
        print(f"starling top: {args.url}: {exc}", file=sys.stderr)
        return 1


def scrape(url: str) -> Scrape:
    """Read once. Raises OSError where there is no answer, ScrapeError for a wrong one."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            text = answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as exc:
        with exc:
            lines = exc.read(200).decode("utf-8", "replace").splitlines()
        # Ours answer in one line, others with a page.
        what = lines[0] if len(lines) == 1 else exc.reason
        raise ScrapeError(f"the server answered {exc.code}: {what}") from exc
    except urllib.error.URLError as exc:
        raise OSError(f"cannot be reached: {exc.reason}") from exc
    except HTTPException as exc:
        raise ScrapeError(f"expected a web server, got {exc!r}") from exc
    return read_scrape(text, time.monotonic())


def view(figures: Figures) -> RenderableType:
    """One screen."""
    return Group(
        _heading(figures),
        _line(_sessions(figures)),
        _line(_speech(figures)),
        "",
        _step_table(figures),
        "",
        _latency_table(figures),
        "",
        _line(_delays(figures)),
        _line(_machine(figures)),
        _line(_trouble(figures), style="yellow"),
    )


def _heading(figures: Figures) -> Text:
    build = figures.build
    what = " ".join(build.get(name, "") for name in ("model", "device", "dtype"))
    return Text.assemble((f"starling {build.get('version', '')} ", "bold"), what)


def _sessions(figures: Figures) -> dict[str, str]:
    states = ", ".join(f"{count} {state}" for state, count in figures.sessions.items())
    total = sum(figures.sessions.values())
    return {
        "sessions": f"{total} of {figures.session_limit} ({states})",
        "admitted": f"{figures.admitted_per_s:.2f}/s",
        "utterances": str(figures.utterances),
    }


def _speech(figures: Figures) -> dict[str, str]:
    interval = figures.partial_interval_s
    return {
        "audio": f"{figures.audio_s_per_s:.1f} s/s",
        "speech": _percent(figures.speech_share),
        "tokens": f"{figures.tokens_per_s:.0f}/s",
        "drafts accepted": _percent(figures.acceptance),
        "partials": f"every {interval:.2g} s (rung {figures.rung})" if interval else "as asked",
    }


def _delays(figures: Figures) -> dict[str, str]:
    return {
        "loop lag max": f"{1000 * figures.loop_lag_max_s:.0f} ms",
        "vad": f"{_number(figures.vad_call_ms)} ms a call, {figures.vad_frames_per_s:.0f} frames/s",
        "outbox": f"{figures.outbox_max} at most",
    }


def _machine(figures: Figures) -> dict[str, str]:
    memory = {"process": figures.memory_bytes}
    memory |= {f"device {state}": size for state, size in figures.device_memory_bytes.items()}
    return {
        "cpu": f"{figures.cpu_cores:.2f} cores",
        "memory": ", ".join(f"{size / 2**20:.0f} MiB {what}" for what, size in memory.items()),
    }


def _trouble(figures: Figures) -> dict[str, str]:
    """What went wrong since the last reading; nothing where nothing did."""
    told = {
        name: ", ".join(f"{count} {what}" for what, count in counts.items())
        for name, counts in (("refused", figures.refused), ("errors", figures.errors))
    }
    return {name: what for name, what in told.items() if what}


def _step_table(figures: Figures) -> Table:
    table = _table("steps", "per s", "rows a step", "ms a step", "of the time")
    for step in figures.steps:
        table.add_row(
            step.kind,
            f"{step.per_s:.1f}",
            _number(step.rows),
            _number(step.step_ms),
            _percent(step.share),
        )
    return table


def _latency_table(figures: Figures) -> Table:
    table = _table("latency, ms", "count", *(f"p{round(100 * share)}" for share in PERCENTILES))
    rows = {
        "end of speech → final": figures.final_latency,
        "partial lag": figures.partial_lag,
        **{f"queue wait, {kind}": wait for kind, wait in figures.queue_wait.items()},
        "event loop lag": figures.loop_lag,
    }
    for name, percentiles in rows.items():
        table.add_row(name, str(percentiles.count), *_milliseconds(percentiles))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, min_width=22)
    for heading in others:
        table.add_column(heading, justify="right", min_width=9)
    return table


def _milliseconds(percentiles: Percentiles) -> Iterable[str]:
    for value in percentiles.values_s or [None] * len(PERCENTILES):
        if value is None:
            yield "-"
        elif value == inf:
            yield f"> {1000 * percentiles.last_bound_s:.0f}"
        else:
            yield f"{1000 * value:.0f}"


def _line(pairs: Mapping[str, str], style: str = "") -> Text:
    parts = (Text.assemble((f"{name} ", "dim"), (value, style)) for name, value in pairs.items())
    return Text("   ").join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _metrics_url(text: str) -> str:
    """The address of the metrics of a server, which may be named as clients name it."""
    parts = urlsplit(text)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise argparse.ArgumentTypeError(f"got {text!r}, takes an address such as {DEFAULT_URL}")
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc}/metrics"


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < inf:
        raise argparse.ArgumentTypeError(f"got {text}, takes more than 0")
    return seconds
