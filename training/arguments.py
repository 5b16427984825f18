"""The command line of the recipe: its commands, each with its settings and their defaults."""

import argparse
import os
from pathlib import Path
from typing import Final

from training.export.checkpoint import Traits
from training.model.optimiser import Rates
from training.package import NEEDED
from training.speech.shards import FORMATS
from training.vocabulary import NUM_TEXT_TOKENS

_WORK: Final = Path("build/training")  # ignored by git
_NUM_SENTENCES: Final = 240_000
_NUM_HELD_OUT: Final = 600
_SEED: Final = 7
# Seconds of audio in a batch that a processor with two cores, or a large GPU, takes at once.
_BUDGET_S: Final = {"cpu": 60.0, "cuda": 2400.0}
# For batches of that size: larger ones bear larger steps.
_RATES: Final = {"cpu": Rates(0.01, 0.8e-3), "cuda": Rates(0.02, 1.5e-3)}
_HUMAN_WEIGHT: Final = 5


def build_parser() -> argparse.ArgumentParser:
    """What `python -m training` understands."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Makes the embedded checkpoint: text, speech, tokenizer, train, export. "
        "Each command goes on where it was interrupted.",
    )
    parser.add_argument(
        "--work", type=Path, default=_WORK, help="where everything goes (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=_SEED, help="of every choice (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_text(commands.add_parser("text", help="write distinct sentences"))
    _add_speech(commands.add_parser("speech", help="have every sentence spoken"))
    _add_tokenizer(commands.add_parser("tokenizer", help="learn the pieces of the sentences"))
    _add_train(commands.add_parser("train", help="train from scratch, or go on"))
    _add_export(commands.add_parser("export", help="write the checkpoint and its card"))
    _add_pack(commands.add_parser("pack", help="gather what a GPU machine without network needs"))
    return parser


def budget_seconds(given: float | None, device_type: str) -> float:
    """Seconds of audio in a batch: what was asked for, or what suits the device."""
    return _BUDGET_S[device_type] if given is None else given


def peak_rates(muon: float | None, adamw: float | None, device_type: str) -> Rates:
    """Learning rates: what was asked for, or what suits the device's batches."""
    usual = _RATES[device_type]
    return Rates(usual.muon if muon is None else muon, usual.adamw if adamw is None else adamw)


def default_processes() -> int:
    """One for each core."""
    return os.cpu_count() or 1


def _add_text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=_NUM_SENTENCES, help="(%(default)s)")
    parser.add_argument(
        "--held-out", type=int, default=_NUM_HELD_OUT, help="sentences to measure by (%(default)s)"
    )
    parser.add_argument(
        "--root", type=Path, default=Path("/"), help="below which Debian's texts are looked for"
    )
    parser.add_argument(
        "--prose", type=Path, nargs="*", default=[], help="directories of books as plain text"
    )
    parser.add_argument(
        "--apart",
        type=Path,
        nargs="*",
        default=[],
        help="manifests that are measured on: no sentence with six words in a row of theirs",
    )


def _add_speech(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engines", nargs="+", help="of espeak, flite, festival, kokoro; those for this machine"
    )
    parser.add_argument("--processes", type=int, default=default_processes(), help="(%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="how often each sentence is spoken (%(default)s)"
    )
    parser.add_argument("--limit", type=int, help="the first sentences alone")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="of the shards; s16 is raw and is trained on in place (%(default)s)",
    )


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokens", type=int, default=NUM_TEXT_TOKENS, help="(%(default)s)")


def _add_train(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--run-seconds", type=float, help="training time of the whole run")
    length.add_argument("--steps", type=int, help="steps of the whole run")
    parser.add_argument("--seconds", type=float, help="time of this slice; the next goes on")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--budget", type=float, help="seconds of audio in a batch")
    parser.add_argument("--workers", type=int, default=1, help="that choose samples (%(default)s)")
    parser.add_argument(
        "--human", type=Path, nargs="*", default=[], help="manifests of human speech"
    )
    parser.add_argument(
        "--human-weight",
        type=int,
        nargs="+",
        default=[_HUMAN_WEIGHT],
        help="how often a recording is heard for one time that a synthetic sentence is; one for "
        f"all manifests, or one for each ({_HUMAN_WEIGHT})",
    )
    parser.add_argument(
        "--base", type=Path, help="begin from this exported checkpoint, of the same sizes"
    )
    parser.add_argument("--state", type=int, default=256, help="width of the model (%(default)s)")
    parser.add_argument("--heads", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--encoder-layers", type=int, default=6, help="(%(default)s)")
    parser.add_argument("--decoder-layers", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--muon-rate", type=float, help="peak, of the hidden matrices")
    parser.add_argument("--adamw-rate", type=float, help="peak, of everything else")
    parser.add_argument("--log-every", type=int, default=50, help="steps (%(default)s)")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="starling-en", help="(%(default)s)")
    parser.add_argument(
        "--measurements", type=Path, nargs="*", default=[], help="JSON of `starling bench wer`"
    )
    parser.add_argument(
        "--mean-with", type=Path, nargs="*", default=[], help="exports of other points of the run"
    )
    parser.add_argument("--max-window-s", type=int, default=Traits().max_window_s)
    parser.add_argument("--carries-text", action="store_true")
    parser.add_argument("--timestamps", action="store_true")
    parser.add_argument("--incremental-partials", action="store_true")


def _add_pack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", type=Path, help="the folder to carry there; made anew")
    parser.add_argument(
        "--human", type=Path, nargs="*", default=[], help="manifests of human speech"
    )
    parser.add_argument(
        "--kilobits", type=float, default=16, help="a second, of human speech (%(default)s)"
    )
    parser.add_argument("--python", default="3.12", help="the version there (%(default)s)")
    parser.add_argument(
        "--wheels", nargs="*", default=NEEDED, help=f"what that Python lacks ({' '.join(NEEDED)})"
    )
