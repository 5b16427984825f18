"""`starling demo`: a server with the embedded model and a client that streams a clip to it.

On a terminal the server stays up afterwards, for the page and the microphone; without one the
command ends with the client's exit status.
"""

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.resources import as_file, files
from typing import IO, Final

from stream_server.protocol import DEFAULT_PORT

_STARLING: Final = (sys.executable, "-m", "stream_server")
_READY: Final = re.compile(r"(wss?://\S+), page (https?://\S+)")
_STOP_TIMEOUT_S: Final = 15  # the server's own drain takes at most 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    parser.add_argument("--model", default="embedded", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one")


def run(args: argparse.Namespace) -> int:
    """Show live captions of the clip that comes with the package."""
    print(f"Starting a server with the model {args.model!r} ...", flush=True)
    with _server(args) as (server, lines):
        addresses = _await_ready(lines)
        if addresses is None:
            return server.wait() or 1
        url, page = addresses
        print(f"Streaming a clip to {url} in real time:\n", flush=True)
        with as_file(files("clients") / "demo" / "demo.flac") as clip:
            status = subprocess.run(
                [*_STARLING, "stream", str(clip), "--url", url, "--partials"], check=False
            ).returncode
        if status == 0 and sys.stdout.isatty():
            print(f"\nThe server stays up: {page} (Ctrl+C ends it).")
            threading.Thread(target=_forward, args=(lines,), daemon=True).start()
            with contextlib.suppress(KeyboardInterrupt):
                server.wait()
        return status


@contextlib.contextmanager
def _server(args: argparse.Namespace) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A server process, stopped at the end; yields it and what it logs."""
    command = [*_STARLING, "serve", "--model", args.model, "--port", str(args.port)]
    # A session of its own: Ctrl+C is for this command, which then stops the server in order.
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    if server.stderr is None:
        raise AssertionError("a pipe was asked for")
    try:
        yield server, server.stderr
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
        try:
            server.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stderr.close()


def _await_ready(lines: IO[str]) -> tuple[str, str] | None:
    """The addresses once the server says them; None where it ended instead."""
    for line in lines:
        ready = _READY.search(line)
        if ready:
            return ready[1], ready[2]
        print(line, end="", file=sys.stderr)
    return None


def _forward(lines: IO[str]) -> None:
    with contextlib.suppress(ValueError):  # closed at the end
        for line in lines:
            print(line, end="", file=sys.stderr)
