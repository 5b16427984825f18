"""The flags that say which model runs where, for every command that has an engine of its own."""

import argparse

from engine.config import DEVICES, DTYPES, EngineConfig

_DEFAULTS = EngineConfig()


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """What `engine_config_of` reads."""
    parser.add_argument(
        "--model",
        default=_DEFAULTS.model,
        help="embedded, a directory, an OpenAI .pt file, a name such as base.en, a hub id, or "
        "auto; default: %(default)s",
    )
    parser.add_argument("--device", choices=DEVICES, default=_DEFAULTS.device)
    parser.add_argument("--dtype", choices=DTYPES, default=_DEFAULTS.dtype)
    parser.add_argument(
        "--threads", type=int, default=_DEFAULTS.threads, help="0: all cores but one"
    )


def engine_config_of(args: argparse.Namespace) -> EngineConfig:
    """The engine that was asked for. Raises ConfigError."""
    return EngineConfig(
        model=args.model, device=args.device, dtype=args.dtype, threads=args.threads
    )
