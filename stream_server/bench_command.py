"""`starling bench`: measure this machine. Chooses the audio; `engine.bench` measures.

Two kinds: with a checkpoint that says something (`redecode`, `throughput`, `partials`, `wer`), and
with random weights of published sizes, which need no download and take as long (all that `gpu`
runs).
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.assembly import build_engine, resolve_device, resolve_dtype
from engine.audio.file import read_audio
from engine.bench import attention, floor, formats, gpu, partials, redecode, sessions, throughput
from engine.bench import requests as requests_bench
from engine.bench.random_checkpoint import PUBLISHED
from engine.bench.report import dtype_name, environment, report
from engine.bench.time_box import TimeBox
from engine.errors import AudioError, ConfigError, EngineError
from engine.model.dims import ModelDims
from stream_server import protocol, server_bench, wer_bench
from stream_server.engine_flags import (
    add_device_arguments,
    add_engine_arguments,
    add_setting_arguments,
    engine_config_of,
    settings_of,
)
from stream_server.silero_net import DetectorError, SileroNet
from stream_server.speech_regions import find_speech


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    again = benchmarks.add_parser("redecode", help="what drafts save on growing windows")
    again.add_argument("--interval-ms", type=int, default=400, help="growth of the windows")
    many = benchmarks.add_parser("throughput", help="requests of 6 s beside transformers")
    many.add_argument(
        "--requests", type=_counts, default=(1, 16, 64, 256), help="default: 1,16,64,256"
    )
    growing = benchmarks.add_parser("partials", help="partials of growing windows, by length")
    growing.add_argument("--interval-ms", type=int, default=400, help="growth of the windows")
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
    random_weights = _add_random_arguments(benchmarks)
    for benchmark in (
        *(again, many, growing, server),
        *(random_weights[name] for name in ("formats", "gpu")),
    ):
        benchmark.add_argument("files", nargs="*", type=Path, help="default: the demo clip")
    for benchmark in (again, many, growing):
        add_engine_arguments(benchmark)
    wer_bench.add_arguments(
        benchmarks.add_parser("wer", help="word errors of recordings, offline and as live speech")
    )


def _add_random_arguments(benchmarks: Any) -> dict[str, argparse.ArgumentParser]:
    """The benchmarks with random weights, by name."""
    parsers: dict[str, argparse.ArgumentParser] = {}
    one_model = ("large-v3-turbo",)
    for name, summary, checkpoints in (
        ("attention", "attention back ends, time and memory", attention.CHECKPOINTS),
        ("requests", "requests of 6 s, eager, graphed and beside transformers", one_model),
        ("sessions", "live sessions straight into the engine", one_model),
        ("floor", "steps beside what bytes and operations take at least", one_model),
        ("formats", "int8 and int4 weights, fp8 caches", one_model),
        ("gpu", "all of these on a CUDA device, in limited time", gpu.CHECKPOINTS),
    ):
        parser = parsers[name] = benchmarks.add_parser(name, help=summary)
        parser.add_argument(
            "--checkpoint",
            type=_published,
            default=checkpoints,
            help=f"sizes of the random weights; default: {','.join(checkpoints)}",
        )
        add_device_arguments(parser)
    for name, default in (("requests", requests_bench.COUNTS), ("sessions", sessions.COUNTS)):
        shown = ",".join(map(str, default))
        parsers[name].add_argument(
            f"--{name}", type=_counts, default=default, help=f"default: {shown}"
        )
        add_setting_arguments(parsers[name])
    parsers["sessions"].add_argument(
        "--seconds", type=_positive, default=20.0, help="of each number; default: %(default)s"
    )
    for name in ("attention", "floor", "formats"):
        parsers[name].add_argument(
            "--seconds", type=_positive, default=inf, help="begin no row that ends later"
        )
    parsers["gpu"].add_argument(
        "--seconds", type=_positive, default=gpu.SECONDS, help="in all; default: %(default)s"
    )
    parsers["gpu"].add_argument(
        "--output", type=Path, default=Path("gpu-bench.json"), help="default: %(default)s"
    )
    return parsers


def run(args: argparse.Namespace, sizes: Mapping[str, ModelDims] = PUBLISHED) -> int:
    """Measure and report; 1 where that was not possible.

    Random weights are of `sizes`, by the names that `--checkpoint` takes.
    """
    try:
        if args.benchmark == "gpu":
            return _run_gpu(args, sizes)
        if args.benchmark == "wer":
            wer_bench.run(args)
            return 0
        rows, facts = _measure(args, sizes)
    except (EngineError, DetectorError, server_bench.BenchError, ImportError) as exc:
        print(f"starling bench: {exc}", file=sys.stderr)
        return 1
    if not rows:
        print(f"starling bench: nothing could be measured: {dict(facts)}", file=sys.stderr)
        return 1
    shown = sessions.turned(rows) if args.benchmark == "sessions" else rows
    report(f"bench {args.benchmark}", rows, facts, shown=shown)
    return 0


def _measure(args: argparse.Namespace, sizes: Mapping[str, ModelDims]) -> gpu.Measured:
    match args.benchmark:
        case "redecode" | "throughput" | "partials":
            return _measure_engine(args)
        case "server":
            return _measure_server(args)
        case "attention":
            return _measure_attention(args, sizes)
        case _:
            return _measure_each(args, sizes)


def _measure_engine(args: argparse.Namespace) -> gpu.Measured:
    config = engine_config_of(args)
    device, dtype = _device_of(args)
    recordings = _recordings(args.files)
    facts = environment(config.model, device.type, dtype_name(dtype))
    match args.benchmark:
        case "throughput":
            rows = throughput.measure(config, recordings, args.requests)
        case "redecode":
            rows = redecode.measure(config, _utterances(recordings), args.interval_ms)
        case _:
            utterances = _utterances(recordings)
            rows = partials.measure(build_engine, config, utterances, args.interval_ms)
            facts["growth"] = partials.growth(rows)
    return rows, facts


def _measure_server(args: argparse.Namespace) -> gpu.Measured:
    shape = server_bench.Shape(args.sessions, args.chunk_ms, args.seconds)
    rows, facts = server_bench.measure(np.concatenate(_recordings(args.files)), shape)
    # No model, but the detector's: on the CPU, in float32.
    return rows, environment("none", "cpu", "float32") | facts


def _measure_attention(args: argparse.Namespace, sizes: Mapping[str, ModelDims]) -> gpu.Measured:
    device, dtype = _device_of(args)
    rows, facts = attention.measure(
        args.checkpoint, device=device, dtype=dtype, box=TimeBox(args.seconds), sizes=sizes
    )
    return rows, _environment(args.checkpoint, device, dtype) | facts


def _measure_each(args: argparse.Namespace, sizes: Mapping[str, ModelDims]) -> gpu.Measured:
    """One of the tables that are of one model; the rows say which."""
    device, dtype = _device_of(args)
    where: dict[str, Any] = {"device": device, "dtype": dtype}
    sized = where | {"sizes": sizes}
    agreed: Mapping[formats.Format, formats.Agreement] = {}
    if args.benchmark == "formats":
        agreed = formats.agreements_on_speech(_recordings(args.files), **where)

    def measure(name: str) -> gpu.Measured:
        match args.benchmark:
            case "requests":
                asked = sized | settings_of(args)
                return gpu.measure_requests(name, args.requests, TimeBox(), **asked)
            case "sessions":
                asked = sized | settings_of(args)
                return gpu.measure_sessions(name, args.sessions, args.seconds, TimeBox(), **asked)
            case "formats":
                return formats.measure(name, agreed, box=TimeBox(args.seconds), **sized)
            case _:
                return floor.measure(name, box=TimeBox(args.seconds), **sized)

    rows: list[Mapping[str, Any]] = []
    about: dict[str, Any] = {}
    for name in args.checkpoint:
        found, about[name] = measure(name)
        rows += [{"model": name} | dict(row) for row in found]
    return rows, _environment(args.checkpoint, device, dtype) | {"about": about}


def _run_gpu(args: argparse.Namespace, sizes: Mapping[str, ModelDims]) -> int:
    device, dtype = _device_of(args)
    if device.type != "cuda":
        raise ConfigError("device: got a CPU, but this takes a CUDA device; try bench floor")
    parts = gpu.plan(
        _recordings(args.files), args.checkpoint, device=device, dtype=dtype, sizes=sizes
    )
    facts = _environment(args.checkpoint, device, dtype)
    return 0 if gpu.run(parts, facts, args.output, seconds=args.seconds, device=device) else 1


def _device_of(args: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    device = resolve_device(args.device)
    return device, resolve_dtype(args.dtype, device)


def _environment(
    checkpoints: Sequence[str], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    model = f"random weights: {', '.join(checkpoints)}"
    return environment(model, device.type, dtype_name(dtype))


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


def _published(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(PUBLISHED):
        raise argparse.ArgumentTypeError(f"got {text!r}, takes names among {', '.join(PUBLISHED)}")
    return names


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
