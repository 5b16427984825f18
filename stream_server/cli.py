"""The `starling` command: finds the subcommand, then imports what it needs and nothing else."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

# Each module has add_arguments(parser) and run(args) -> exit status.
_COMMANDS = {
    "demo": ("stream_server.demo_command", "live captions of a clip, with a server of its own"),
    "transcribe": ("stream_server.transcribe_command", "recordings to text, SRT, VTT or JSON"),
    "stream": ("clients.file", "send a recording to a server as if it were spoken now"),
    "mic": ("clients.microphone", "live captions of this machine's microphone"),
    "top": ("clients.top", "what a server is doing, live in the terminal"),
    "loadtest": ("clients.load", "simulated sessions against a server, and what they see"),
    "bench": (
        "stream_server.bench_command",
        "measure this machine: throughput, redecode, partials, server, and tables of a GPU",
    ),
}
_SERVE = "serve live speech recognition over websockets"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Before torch is loaded: threads that wait for work by spinning starve everything else on a
    # machine whose cores are shared between engine, detector and event loop (docs/log.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if arguments[:1] == ["serve"]:
        return _serve(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="starling", description="Real-time streaming speech recognition."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help=_SERVE, add_help=False)
    chosen = arguments[0] if arguments else None
    for name, (module, summary) in _COMMANDS.items():
        subparser = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:
            import_module(module).add_arguments(subparser)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    status: int = import_module(_COMMANDS[args.command][0]).run(args)
    return status


def _serve(arguments: Sequence[str]) -> int:
    from engine.errors import EngineError
    from stream_server.config import ServerConfig
    from stream_server.log_format import formatter_of
    from stream_server.server import serve
    from stream_server.silero_net import DetectorError

    try:
        config = ServerConfig.from_args(arguments)
        handler = logging.StreamHandler()
        handler.setFormatter(formatter_of(config.log_format))
        logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
        return serve(config)
    except (EngineError, DetectorError, OSError) as exc:
        print(f"starling serve: {exc}", file=sys.stderr)
        return 2
