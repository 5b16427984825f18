"""The flags that say which model runs where, for every command that has an engine of its own."""

import argparse
from typing import Any

from engine.config import (
    ATTENTIONS,
    DEVICES,
    DTYPES,
    KV_DTYPES,
    PARTIAL_CONTEXTS,
    TOGGLES,
    WEIGHTS,
    EngineConfig,
)

_DEFAULTS = EngineConfig()


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """What `engine_config_of` reads."""
    parser.add_argument(
        "--model",
        default=_DEFAULTS.model,
        help="embedded, a directory, an OpenAI .pt file, a name such as base.en, a hub id, or "
        "auto; default: %(default)s",
    )
    parser.add_argument(
        "--threads", type=int, default=_DEFAULTS.threads, help="0: all cores but one"
    )
    add_device_arguments(parser)
    add_setting_arguments(parser)


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """`--device` and `--dtype` alone, for what brings its own model."""
    parser.add_argument("--device", choices=DEVICES, default=_DEFAULTS.device)
    parser.add_argument("--dtype", choices=DTYPES, default=_DEFAULTS.dtype)


def add_setting_arguments(parser: argparse.ArgumentParser) -> None:
    """What `settings_of` reads: how an engine computes, whatever its model."""
    for flag, accepted, default, what in (
        ("--attention", ATTENTIONS, _DEFAULTS.attention, "back end on a GPU; auto measures"),
        ("--cuda-graphs", TOGGLES, _DEFAULTS.cuda_graphs, "replay steps on a GPU; auto is on"),
        ("--weights", WEIGHTS, _DEFAULTS.weights, "format of the weights; auto is --dtype"),
        ("--kv-dtype", KV_DTYPES, _DEFAULTS.kv_dtype, "format of keys and values"),
        (
            "--partial-context",
            PARTIAL_CONTEXTS,
            _DEFAULTS.partial_context,
            "what is encoded of a growing window: all of it, or what is new (an approximation)",
        ),
    ):
        parser.add_argument(flag, choices=accepted, default=default, help=what)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, under the names of EngineConfig."""
    return {
        "attention": args.attention,
        "cuda_graphs": args.cuda_graphs,
        "weights": args.weights,
        "kv_dtype": args.kv_dtype,
        "partial_context": args.partial_context,
    }


def engine_config_of(args: argparse.Namespace) -> EngineConfig:
    """The engine that was asked for. Raises ConfigError."""
    return EngineConfig(
        model=args.model,
        device=args.device,
        dtype=args.dtype,
        threads=args.threads,
        **settings_of(args),
    )
