"""`python -m training COMMAND`: the recipe's entry; its last line on stdout is JSON."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from engine.assembly import resolve_device
from engine.audio.units import MAX_WINDOW_POSITIONS, samples_from_seconds
from engine.errors import EngineError
from engine.model.dims import ModelDims
from training.arguments import budget_seconds, build_parser, default_processes, peak_rates
from training.corpus import Sources, decode, find_utterances, hours_by_engine, hours_of
from training.data.feeder import FeedPlan, feed
from training.data.targets import uncertain_tokens
from training.errors import RecipeError
from training.export.card import CardFacts
from training.export.checkpoint import Traits, export_run
from training.human import hours_heard
from training.model.loop import RunPlan, Trainer
from training.package import PackPlan, pack
from training.speech.synthesis import (
    SHARDS,
    installed_engines,
    speak_held_out,
    start_engines,
    synthesise,
)
from training.text.collection import SENTENCES_FILE, collect_text, read_sentences
from training.vocabulary import load_tokens, train_tokenizer

_NUM_MELS: Final = 80
_TEXT_CONTEXT: Final = 448
_MLP_RATIO: Final = 4

Report = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    args = build_parser().parse_args(arguments)
    commands: Mapping[str, Callable[[argparse.Namespace], Report]] = {
        "text": _text,
        "speech": _speech,
        "tokenizer": _tokenizer,
        "train": _train,
        "export": _export,
        "pack": _pack,
    }
    try:
        report = commands[args.command](args)
    except (RecipeError, EngineError) as exc:
        print(f"training {args.command}: {exc}", file=sys.stderr)
        return 1
    print(json.dumps({"command": args.command, **report}))
    return 0


def _text(args: argparse.Namespace) -> Report:
    count = collect_text(
        args.work / "text",
        count=args.count,
        held_out=args.held_out,
        seed=args.seed,
        root=args.root,
        prose=args.prose,
        apart=args.apart,
    )
    return {"sentences": count}


def _speech(args: argparse.Namespace) -> Report:
    engines = installed_engines() if args.engines is None else tuple(args.engines)
    target = args.work / "speech"
    hours = synthesise(
        args.work / "text",
        target,
        engines=engines,
        processes=args.processes,
        rounds=args.rounds,
        limit=args.limit,
        fmt=args.format,
    )
    manifest = speak_held_out(args.work / "text", target, start_engines(engines))
    return {"hours_made": round(hours, 2), "engines": engines, "held_out": str(manifest)}


def _tokenizer(args: argparse.Namespace) -> Report:
    sentences = read_sentences(args.work / "text" / SENTENCES_FILE)
    path = train_tokenizer((s.text for s in sentences), args.work / "tokenizer", args.tokens)
    return {"tokenizer": str(path)}


def _train(args: argparse.Namespace) -> Report:
    device = resolve_device(args.device)
    sources = _sources(args, _weighed(args))
    manifests = decode(sources, processes=default_processes() if args.workers else 0)
    weights = (weight for _, weight in sources.people)
    synthetic, human = find_utterances(sources)
    tokens = load_tokens(args.work / "tokenizer")
    plan = RunPlan(
        steps=args.steps,
        run_seconds=args.run_seconds,
        slice_seconds=args.seconds,
        log_every=args.log_every,
        rates=peak_rates(args.muon_rate, args.adamw_rate, device.type),
        seed=args.seed,
        base=args.base,
        people=hours_heard(zip(manifests, weights, strict=True)),
    )
    trainer = Trainer(
        args.work / "run",
        _dims(args, tokens.n_vocab),
        plan,
        uncertain_tokens(tokens),
        tokens.eot,
        device.type,
    )
    feed_plan = FeedPlan(
        sources,
        args.work / "tokenizer",
        samples_from_seconds(budget_seconds(args.budget, device.type)),
        # A later slice hears other samples than the ones before it.
        args.seed + trainer.step,
    )
    lines = trainer.run(feed(feed_plan, workers=args.workers, pin=device.type == "cuda"))
    return {
        "synthetic_hours": round(hours_of(synthetic), 2),
        "human_hours": round(hours_of(human), 2),
        "steps": trainer.step,
        "first": lines[0] if lines else None,
        "last": lines[-1] if lines else None,
    }


def _export(args: argparse.Namespace) -> Report:
    synthetic, _ = find_utterances(_sources(args, ()))
    facts = CardFacts(
        name=args.name,
        num_sentences=len({located.utterance.text for located in synthetic}),
        synthetic_hours=hours_by_engine(synthetic),
    )
    documents = [_read_measurements(path) for path in args.measurements]
    measurements: Report = {
        part: [row for document in documents for row in document.get(part) or ()]
        for part in ("rows", "invented")
    }
    target = export_run(
        args.work / "run",
        args.work / "tokenizer",
        args.work / "export",
        traits=Traits(
            args.max_window_s, args.carries_text, args.timestamps, args.incremental_partials
        ),
        facts=facts,
        measurements=measurements,
        others=args.mean_with,
    )
    return {"checkpoint": str(target)}


def _pack(args: argparse.Namespace) -> Report:
    bit_rate = round(args.kilobits * 1000)
    plan = PackPlan(args.work, tuple(args.human), bit_rate, args.python, tuple(args.wheels))
    size = pack(plan, args.target, processes=default_processes())
    return {"target": str(args.target), "megabytes": round(size / 1e6, 1)}


def _sources(args: argparse.Namespace, people: tuple[tuple[Path, int], ...]) -> Sources:
    return Sources(args.work / "speech" / SHARDS, people, args.work / "decoded")


def _weighed(args: argparse.Namespace) -> tuple[tuple[Path, int], ...]:
    """Each manifest of human speech with its weight. Raises RecipeError."""
    weights, manifests = args.human_weight, args.human
    if len(weights) not in {1, len(manifests)}:
        raise RecipeError(
            f"--human-weight: expected one, or one for each of {len(manifests)} manifests, "
            f"got {len(weights)}"
        )
    each = weights * len(manifests) if len(weights) == 1 else weights
    return tuple(zip(manifests, each, strict=True))


def _dims(args: argparse.Namespace, n_vocab: int) -> ModelDims:
    width = args.state
    return ModelDims(
        n_mels=_NUM_MELS,
        n_audio_ctx=MAX_WINDOW_POSITIONS,
        n_audio_state=width,
        n_audio_head=args.heads,
        n_audio_layer=args.encoder_layers,
        n_audio_mlp=_MLP_RATIO * width,
        n_vocab=n_vocab,
        n_text_ctx=_TEXT_CONTEXT,
        n_text_state=width,
        n_text_head=args.heads,
        n_text_layer=args.decoder_layers,
        n_text_mlp=_MLP_RATIO * width,
    )


def _read_measurements(path: Path) -> Report:
    """The last line of what a bench printed, or the whole file. Raises RecipeError."""
    try:
        raw = path.read_text("utf-8").strip()
        document = json.loads(raw if raw.startswith("{") else raw.splitlines()[-1])
    except (OSError, ValueError, IndexError) as exc:
        raise RecipeError(f"{path}: expected the JSON of a bench: {exc}") from exc
    if not isinstance(document, dict):
        raise RecipeError(f"{path}: expected an object, found {type(document).__name__}")
    return document


if __name__ == "__main__":
    sys.exit(main())
