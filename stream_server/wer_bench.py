"""`starling bench wer`: its flags, the detector that divides recordings, the bar while it runs."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.assembly import build_engine
from engine.audio.units import Positions
from engine.bench.report import environment
from engine.bench.wer import Advance, Found, invented, measure
from engine.bench.wer_hearing import FindSpeech, Hearing
from engine.bench.wer_report import show, write_details
from engine.bench.wer_sets import GROUPINGS, Recording, copies, in_groups, read_manifest, spread
from engine.bench.wer_sounds import SOUNDS
from engine.config import CONTEXTS, EngineConfig
from engine.errors import ConfigError
from engine.metrics import EngineMetrics
from stream_server import protocol
from stream_server.engine_flags import add_engine_arguments, engine_config_of
from stream_server.silero_net import SileroNet
from stream_server.speech_regions import find_speech

_DIVISIONS: Final = ("whole", "speech", "both")
_HEARING = Hearing()
_DEFAULTS = EngineConfig()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    parser.add_argument("manifests", nargs="*", type=Path, metavar="MANIFEST")
    add_engine_arguments(parser)
    parser.add_argument("--context", choices=CONTEXTS, default=_HEARING.context)
    parser.add_argument(
        "--look-back",
        type=_at_least(0),
        default=_DEFAULTS.look_back,
        help="positions of 20 ms that incremental partials encode again; default: %(default)s",
    )
    parser.add_argument(
        "--interval-ms",
        type=_at_least(100),
        default=_HEARING.interval_ms,
        help="growth of live windows; default: %(default)s",
    )
    parser.add_argument("--limit", type=_at_least(1), help="recordings of each group")
    parser.add_argument("--by", choices=GROUPINGS, default=GROUPINGS[0], help="what a group is")
    parser.add_argument(
        "--divide",
        choices=_DIVISIONS,
        default=_DIVISIONS[-1],
        help="each recording as a whole, or the speech that the detector finds in it; live "
        "speech is the latter where it can be",
    )
    parser.add_argument("--offline-only", action="store_true", help="not as live speech as well")
    parser.add_argument("--noise-db", type=float, help="a copy as well with so much noise, SNR")
    parser.add_argument(
        "--telephone", action="store_true", help="a copy as well over a telephone line"
    )
    parser.add_argument(
        "--invented",
        type=_minutes,
        default=0.0,
        metavar="MINUTES",
        help=f"words heard in so much of each: {', '.join(SOUNDS)}",
    )
    parser.add_argument("--worst", type=_at_least(0), default=10, help="default: %(default)s")
    parser.add_argument("--details", type=Path, help="JSON lines: what was heard of each recording")


def run(args: argparse.Namespace) -> None:
    """Measure and print. Raises EngineError, DetectorError, ImportError."""
    if not args.manifests and not args.invented:
        raise ConfigError("got neither manifests nor --invented, takes at least one of them")
    recordings = _chosen(args.manifests, args.by, args.limit)
    degraded = copies(args.noise_db, telephone=args.telephone)
    engine = build_engine(replace(engine_config_of(args), look_back=Positions(args.look_back)))
    hearing = Hearing(
        args.context,
        args.interval_ms,
        whole=args.divide != "speech",
        find_speech=None if args.divide == "whole" else _detector(),
        live=not args.offline_only,
    )
    found, rows = Found(), list[dict[str, Any]]()
    seconds = len(degraded) * sum(recording.seconds for recording in recordings)
    if recordings:
        with _bar("recordings", seconds) as advance:
            found = measure(
                engine, recordings, hearing, degraded, grouping=args.by, advance=advance
            )
    if args.invented:
        with _bar("silence and noise", 60 * args.invented * len(SOUNDS)) as advance:
            rows = invented(engine, args.invented, hearing, advance=advance)
    if args.details is not None:
        write_details(found.comparisons, args.details)
    if not found.comparisons and not rows:
        languages = ", ".join(engine.info.languages)
        raise ConfigError(f"{engine.info.name} knows {languages}: no recording is in these")
    show(found, rows, _facts(args, engine.metrics), num_worst=args.worst)


def _chosen(manifests: Sequence[Path], grouping: str, limit: int | None) -> list[Recording]:
    recordings = [recording for path in manifests for recording in read_manifest(path)]
    if limit is None:
        return recordings
    groups = in_groups(recordings, grouping).values()
    return [recording for group in groups for recording in spread(group, limit)]


def _facts(args: argparse.Namespace, metrics: EngineMetrics) -> dict[str, Any]:
    """What was measured, and how; `steps` are rows, which show what "auto" stood for."""
    return environment(args.model, metrics.device, metrics.dtype) | {
        "manifests": [str(path) for path in args.manifests],
        "limit": args.limit,
        "context": args.context,
        "partial_context": args.partial_context,
        "look_back": args.look_back,
        "interval_ms": args.interval_ms,
        "weights": args.weights,
        "kv_dtype": args.kv_dtype,
        "steps": {kind: step.rows for kind, step in metrics.steps.items()},
    }


def _detector() -> FindSpeech:
    net = SileroNet()
    return lambda samples: find_speech(samples, net, protocol.Start())


@contextmanager
def _bar(what: str, seconds: float) -> Iterator[Advance]:
    """A bar on a terminal's standard error, by the seconds of audio that are done."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("s of audio"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=round(seconds))
        yield lambda done: bar.advance(task, done)


def _at_least(least: int) -> Callable[[str], int]:
    """A whole number, as an argument's type."""

    def read(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"got {text}, takes {least} or more")
        return number

    return read


def _minutes(text: str) -> float:
    number = float(text)
    if not 0 < number <= 24 * 60:
        raise argparse.ArgumentTypeError(f"got {text}, takes more than 0, at most a day")
    return number
