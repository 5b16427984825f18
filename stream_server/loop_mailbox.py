"""Calls from other threads to the event loop's, which is woken once for many of them.

A tick of the detector answers every session. To wake the loop for each of them costs a system
call, half of what everything else about such an answer does.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any


class LoopMailbox:
    """Calls waiting for one event loop. `post` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_woken = False

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """Have `call(*args)` run on the loop, after all that was posted before. It may not raise.

        Where the loop is closed nothing happens: the process is ending, nobody is left to be told.
        """
        self._calls.append((call, args))
        # Two threads may both find it asleep and wake it twice: the second finds nothing to do.
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        # First, so that whoever posts from here on wakes the loop again.
        self._is_woken = False
        # What comes meanwhile waits its turn behind the sockets.
        for _ in range(len(self._calls)):
            call, args = self._calls.popleft()
            call(*args)
