"""`starling serve` as a process of its own, as a user would start it."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from urllib.parse import urlsplit

from tests.support.clips import REPOSITORY

# In float32, so that transcripts are reproducible; one thread, as the tests need the other core.
EMBEDDED = ("--model", "embedded", "--device", "cpu", "--dtype", "float32", "--threads", "1")


class ServerProcess:
    """A server that can be killed and started again at the same address."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self._port = 0
        self.start()

    def start(self) -> None:
        """Return once the server listens."""
        command = [sys.executable, "-m", "stream_server", "serve", *EMBEDDED]
        self._process = subprocess.Popen(
            [*command, "--port", str(self._port), *self._flags],
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        self.log: list[str] = []
        try:
            self.url = self._await_address(self._process.stderr)
        except BaseException:
            self._process.kill()
            raise
        self._port = urlsplit(self.url).port or 0
        # Somebody has to read it, or the server waits.
        self._reader = threading.Thread(target=self.log.extend, args=(self._process.stderr,))
        self._reader.start()

    def _await_address(self, log: IO[str]) -> str:
        while line := log.readline():
            self.log.append(line)
            if address := re.search(r"ws://\S+(?=,)", line):
                return address[0]
        raise AssertionError(f"the server ended instead of listening: {self.log}")

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def stop(self) -> None:
        """Drain it; a bad end is an error."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait()
        self.kill()
        assert status == 0, f"the server ended with status {status}: {self.log}"

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        with self._process:
            self._process.kill()
            self._process.wait()
            self._reader.join()


@contextmanager
def restartable_server(*flags: str) -> Iterator[ServerProcess]:
    """Start a server, hand it over, drain it."""
    server = ServerProcess(*flags)
    try:
        yield server
        server.stop()
    finally:
        server.kill()


@contextmanager
def server_process(*flags: str) -> Iterator[str]:
    """Start a server, hand over its websocket address, drain it."""
    with restartable_server(*flags) as server:
        yield server.url
