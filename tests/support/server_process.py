"""`starling serve` as a process of its own, as a user would start it."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.clips import REPOSITORY

# In float32, so that transcripts are reproducible; one thread, as the tests need the other core.
EMBEDDED = ("--model", "embedded", "--device", "cpu", "--dtype", "float32", "--threads", "1")


@contextmanager
def server_process(*flags: str) -> Iterator[str]:
    """Start a server, hand over its websocket address, drain it; a bad end is an error."""
    command = [sys.executable, "-m", "stream_server", "serve", "--port", "0", *EMBEDDED, *flags]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        log: list[str] = []
        try:
            address = None
            while address is None:
                line = process.stderr.readline()
                assert line, f"the server ended instead of listening: {log}"
                log.append(line)
                address = re.search(r"ws://\S+(?=,)", line)
            rest = threading.Thread(target=log.extend, args=(process.stderr,))
            rest.start()
            yield address[0]
            process.send_signal(signal.SIGTERM)
            status = process.wait()
            rest.join()
            assert status == 0, f"the server ended with status {status}: {log}"
        finally:
            process.kill()
