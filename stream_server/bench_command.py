"""`starling bench`: measure this machine. Chooses the audio; `engine.bench` measures."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.assembly import resolve_device, resolve_dtype
from engine.audio.file import read_audio
from engine.bench import redecode, throughput
from engine.bench.report import environment, report
from engine.errors import AudioError, EngineError
from stream_server import protocol, server_bench
from stream_server.engine_flags import add_engine_arguments, engine_config_of
from stream_server.silero_net import DetectorError, SileroNet
from stream_server.speech_regions import find_speech

_Measured = tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]  # rows, and facts about them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    again = benchmarks.add_parser("redecode", help="what drafts save on growing windows")
    again.add_argument("--interval-ms", type=int, default=400, help="growth of the windows")
    many = benchmarks.add_parser("throughput", help="requests of 6 s beside transformers")
    many.add_argument(
        "--requests", type=_counts, default=(1, 16, 64, 256), help="default: 1,16,64,256"
    )
    server = benchmarks.add_parser("server", help="CPU time per audio message, without a model")
    shape = server_bench.Shape()
    for name, kind, default, what in (
        ("sessions", _count, shape.sessions, "at once"),
        ("chunk-ms", _count, shape.chunk_ms, "audio in a message"),
        ("seconds", _positive, shape.seconds, "measured, each of two times"),
    ):
        server.add_argument(
            f"--{name}", type=kind, default=default, help=f"{what}; default: %(default)s"
        )
    for benchmark in (again, many, server):
        benchmark.add_argument("files", nargs="*", type=Path, help="default: the demo clip")
    for benchmark in (again, many):
        add_engine_arguments(benchmark)


def run(args: argparse.Namespace) -> int:
    """Measure and report; 1 where that was not possible."""
    try:
        rows, facts = _measure_server(args) if args.benchmark == "server" else _measure_engine(args)
    except (EngineError, DetectorError, server_bench.BenchError, ImportError) as exc:
        print(f"starling bench: {exc}", file=sys.stderr)
        return 1
    report(f"bench {args.benchmark}", rows, facts)
    return 0


def _measure_engine(args: argparse.Namespace) -> _Measured:
    config = engine_config_of(args)
    device = resolve_device(config.device)
    dtype = str(resolve_dtype(config.dtype, device)).removeprefix("torch.")
    recordings = _recordings(args.files)
    if args.benchmark == "redecode":
        rows = redecode.measure(config, _utterances(recordings), args.interval_ms)
    else:
        rows = throughput.measure(config, recordings, args.requests)
    return rows, environment(config.model, device.type, dtype)


def _measure_server(args: argparse.Namespace) -> _Measured:
    shape = server_bench.Shape(args.sessions, args.chunk_ms, args.seconds)
    rows, facts = server_bench.measure(np.concatenate(_recordings(args.files)), shape)
    # No model, but the detector's: on the CPU, in float32.
    return rows, environment("none", "cpu", "float32") | facts


def _recordings(paths: Sequence[Path]) -> list[NDArray[np.float32]]:
    if paths:
        return [read_audio(path) for path in paths]
    with as_file(files("clients") / "demo" / "demo.flac") as path:
        return [read_audio(path)]


def _utterances(recordings: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The stretches of speech. Raises AudioError where there is none to measure with."""
    net = SileroNet()
    spoken = [
        samples[start:end]
        for samples in recordings
        for start, end in find_speech(samples, net, protocol.Start())
    ]
    if not spoken:
        raise AudioError("expected recordings with speech, found none in them")
    return spoken


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, takes numbers such as 1,16,64")
    return counts


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}, takes 1 or more")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"got {text}, takes more than 0")
    return number
