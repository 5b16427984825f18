"""`starling loadtest`: simulated sessions against a running server, and what they saw.

    starling loadtest --sessions 64 --seconds 60 --report load.html
    starling loadtest --find-capacity --p95-final-ms 500

The last line on stdout is one JSON document with everything.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from clients.client import ConnectError, StreamError
from clients.load_capacity import Limits
from clients.load_clips import ClipError, ClipStore, read_manifest, shipped_clips
from clients.load_figures import CountWordErrors
from clients.load_plan import SAMPLE_RATE, LoadShape, PlanError
from clients.load_plots import require_matplotlib
from clients.load_processes import LoadProcessError
from clients.load_report import LEVEL_HEADINGS, level_rows, render
from clients.load_run import LoadSettings, LoadTest, document_of
from clients.load_session import Target
from clients.load_view import LoadView, counted, print_summary
from clients.session_arguments import add_session_arguments, start_message
from clients.word_errors import MissingPackageError, count_word_errors

# A minute lets about every second session say the shipped clip from its first word to its last.
_SHAPE: Final = LoadShape(sessions=8, seconds=60)
_LIMITS: Final = Limits()
# One interpreter sends and reads for about so many sessions on half of a core.
PER_PROCESS: Final = 200
WARM_UP_S: Final = 5.0  # a detector, an engine and a cache see everybody once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    load = parser.add_argument_group("load")
    for name, kind, default, what in (
        (
            "sessions",
            int,
            _SHAPE.sessions,
            "simulated sessions; with --find-capacity the first try",
        ),
        ("seconds", float, _SHAPE.seconds, "audio that counts, with every session open"),
        ("warm-up-s", float, WARM_UP_S, "audio with every session open that does not count"),
        ("starts-per-s", float, _SHAPE.starts_per_s, "sessions that join in a second"),
        ("duty", float, _SHAPE.duty, "share of the time in which a clip is heard"),
        ("noise-share", float, _SHAPE.noise_share, "sessions without any speech"),
        ("speed", _positive, 1.0, "times real time, for accelerated runs"),
        ("seed", int, _SHAPE.seed, "the same seed, the same load"),
        ("per-process", _count, PER_PROCESS, "sessions of one generating process"),
    ):
        load.add_argument(
            f"--{name}",
            type=kind,
            default=default,
            metavar="N",
            help=f"{what}; default: %(default)s",
        )
    load.add_argument(
        "--kind",
        choices=("silence", "noise"),
        default=_SHAPE.noise_kind,
        help="what sessions without speech hear; default: %(default)s",
    )
    load.add_argument(
        "--clips",
        type=Path,
        metavar="FOLDER",
        help="with a manifest.tsv of path, seconds, transcript; default: the clip of starling demo",
    )
    load.add_argument(
        "--no-unloaded",
        action="store_true",
        help="skip decoding the clips one by one beforehand",
    )
    search = parser.add_argument_group("capacity")
    search.add_argument("--find-capacity", action="store_true", help="search the most that holds")
    search.add_argument(
        "--p95-final-ms",
        type=_positive,
        default=_LIMITS.p95_final_s * 1000,
        metavar="N",
        help="end of speech to final, beyond the endpoint silence; default: %(default)g",
    )
    search.add_argument(
        "--max-age-s",
        type=_positive,
        default=_LIMITS.max_age_s,
        metavar="N",
        help="oldest partial while somebody speaks; default: %(default)g",
    )
    search.add_argument(
        "--max-sessions", type=_count, default=4096, metavar="N", help="default: %(default)s"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="the document, in a file too")
    output.add_argument("--report", type=Path, metavar="FILE.html", help="a page with plots")
    add_session_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Load the server and report.

    Returns 0, 1 where a session failed or stable text changed, 2 where there was nothing to
    measure with or against, 130 where it was interrupted.
    """
    limits = Limits(args.p95_final_ms / 1000, args.max_age_s) if args.find_capacity else None
    began = datetime.now(UTC)
    try:
        settings = _settings(args)
        if args.report is not None:
            require_matplotlib()
        clips = shipped_clips() if args.clips is None else read_manifest(args.clips)
        capacity = None
        with tempfile.TemporaryDirectory() as folder, LoadView(sys.stdout) as view:
            view.note(f"Preparing {counted(len(clips), 'clip')} ...")
            store = ClipStore.prepare(clips, Path(folder) / "clips.pcm")
            test = LoadTest(settings, clips, store, _word_error_counter(view), view)
            test.greet()
            if limits is None:
                test.run_level(settings.shape.sessions)
            else:
                capacity = test.find_capacity(limits, args.max_sessions)
        about = {
            "folder": None if args.clips is None else str(args.clips),
            "count": len(clips),
            "seconds": sum(store.clip_samples) / SAMPLE_RATE,
        }
        document = document_of(test, _given(args), about, limits, capacity, began)
        _show(view.console, document)
        _save(args, document)
    except KeyboardInterrupt:
        return 130
    except (PlanError, ClipError, MissingPackageError, ConnectError, OSError) as exc:
        print(f"starling loadtest: {exc}", file=sys.stderr)
        return 2
    except (StreamError, LoadProcessError) as exc:
        print(f"starling loadtest: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(document, ensure_ascii=False))
    return exit_status(document)


def exit_status(document: Mapping[str, Any]) -> int:
    """1 where stable text changed, a session failed, or none was taken.

    A search for the capacity goes beyond it on purpose: there sessions may fail, but one at least
    has to hold.
    """
    levels = document["levels"]
    if any(level["retractions"] for level in levels):
        return 1
    if document["capacity"] is not None:
        return 0 if document["capacity"] else 1
    (level,) = levels
    outcomes = level["outcomes"]
    complete = outcomes.get("done") and not outcomes.get("failed") and not level["missing_finals"]
    return 0 if complete else 1


def _settings(args: argparse.Namespace) -> LoadSettings:
    """Raises PlanError."""
    shape = LoadShape(
        sessions=args.sessions,
        seconds=args.seconds,
        warm_up_s=args.warm_up_s,
        starts_per_s=args.starts_per_s,
        duty=args.duty,
        noise_share=args.noise_share,
        noise_kind=args.kind,
        seed=args.seed,
    )
    target = Target(
        url=args.url,
        start=start_message(args, sample_rate=SAMPLE_RATE, channels=1),
        speed=args.speed,
        api_key=args.api_key,
        all_msgpack=args.msgpack,
    )
    return LoadSettings(shape, target, args.per_process, not args.no_unloaded)


def _word_error_counter(view: LoadView) -> CountWordErrors | None:
    try:
        count_word_errors([])
    except MissingPackageError as exc:
        view.note(str(exc))
        return None
    return count_word_errors


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments by their flags' names, but for the key, which is nobody's to read."""
    given = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name not in ("command", "api_key", "append_only")
    }
    return given | {"no_append_only": not args.append_only}


def _show(console: Console, document: Mapping[str, Any]) -> None:
    levels = document["levels"]
    if document["capacity"] is None:
        print_summary(console, levels[0])
        return
    table = Table(*LEVEL_HEADINGS, title=f"capacity: {counted(document['capacity'], 'session')}")
    for row in level_rows(levels):
        table.add_row(*row)
    console.print(table)
    held = [level for level in levels if level["sessions"] == document["capacity"]]
    for level in held:
        print_summary(console, level)


def _save(args: argparse.Namespace, document: Mapping[str, Any]) -> None:
    """Raises OSError."""
    if args.json is not None:
        args.json.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", "utf-8")
    if args.report is not None:
        args.report.write_text(render(document), "utf-8")


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, accepted: more than 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}, accepted: 1 or more")
    return number
