"""`starling transcribe`: recordings in, text out, through the same engine as live speech."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from engine.audio.file import read_audio
from engine.audio.units import Samples
from engine.config import CONTEXTS, EngineConfig
from engine.errors import AudioError, EngineError
from engine.events import ModelInfo, SegmentClosed, UtteranceOptions
from engine.offline import Region, transcribe
from engine.worker import Worker
from stream_server import protocol
from stream_server.engine_flags import add_engine_arguments, engine_config_of
from stream_server.silero_net import DetectorError, SileroNet
from stream_server.speech_regions import find_speech
from stream_server.transcript_formats import FORMATS, render

_DEFAULTS = EngineConfig()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add_engine_arguments(parser)
    parser.add_argument("--language", help="ISO 639-1 code; without it the language is detected")
    parser.add_argument("--task", choices=("transcribe", "translate"), default="transcribe")
    parser.add_argument("--prompt", default="", help="text that comes before, for names and style")
    parser.add_argument(
        "--no-timestamps",
        action="store_true",
        help="one line for each utterance; so it always is with the embedded model",
    )
    parser.add_argument("--word-timestamps", action="store_true", help="word times, with --json")
    parser.add_argument(
        "--no-vad", action="store_true", help="decode everything, also where nobody speaks"
    )
    parser.add_argument("--context", choices=CONTEXTS, default=_DEFAULTS.context)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=FORMATS, default="text")
    form.add_argument("--json", action="store_const", const="json", dest="format")


def run(args: argparse.Namespace) -> int:
    """Transcribe each file to standard output; 1 where one of them could not be."""
    worker = Worker(engine_config_of(args))
    status = 0
    try:
        net = None if args.no_vad else SileroNet()
        worker.start()
        options = _options_of(args, worker.info)
        for path in args.files:
            try:
                print(_transcribe_file(path, worker, net, options, args.format), end="")
            except AudioError as exc:
                print(f"starling transcribe: {exc}", file=sys.stderr)
                status = 1
    except (EngineError, DetectorError) as exc:
        print(f"starling transcribe: {exc}", file=sys.stderr)
        return 1
    finally:
        worker.stop()
    return status


def _options_of(args: argparse.Namespace, model: ModelInfo) -> UtteranceOptions:
    """Raises EngineError for a language or task that the model does not have."""
    for name, value, known in (
        ("--language", args.language, model.languages),
        ("--task", args.task, model.tasks),
    ):
        if value is not None and value not in known:
            raise EngineError(f"{name}: got {value!r}, {model.name} takes {', '.join(known)}")
    return UtteranceOptions(
        language=args.language,
        task=args.task,
        prompt=args.prompt,
        interim_results=False,
        append_only=False,
        timestamps=model.timestamps and not args.no_timestamps,
        word_timestamps=args.word_timestamps,
        context=args.context,
    )


def _transcribe_file(
    path: Path, worker: Worker, net: SileroNet | None, options: UtteranceOptions, form: str
) -> str:
    samples = read_audio(path)
    regions: list[Region] | None = None
    if net is not None:
        regions = find_speech(samples, net, protocol.Start())
    segments = list(
        _with_progress(transcribe(worker, samples, options, regions), path, samples.size)
    )
    return render(segments, Samples(samples.size), form)


def _with_progress(
    segments: Iterator[SegmentClosed], path: Path, num_samples: int
) -> Iterator[SegmentClosed]:
    """A bar on a terminal's standard error, by the audio that is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(path.name, total=num_samples)
        for segment in segments:
            bar.update(task, completed=segment.end)
            yield segment
