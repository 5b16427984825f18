"""How late the event loop is: what every socket, detector score and engine event waits for it.

Decides what is remembered of the readings; `watch` takes them.
"""

import asyncio
from collections import deque
from typing import Final

from engine.metrics import Histogram

SAMPLE_S: Final = 0.1  # ten readings a second cost nothing and miss no stall that a person notices
RECENT_S: Final = 60.0  # the largest lag is kept at least until the next scrape, whoever scrapes
# Upper bounds in seconds. 20 ms is what one audio message of a client lasts.
LAG_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class LoopLag:
    """Readings of one event loop. Touched only by its thread."""

    def __init__(self) -> None:
        self.histogram = Histogram(LAG_BOUNDS)
        # Those of the last minute that no later one exceeds, so the first is the largest.
        self._largest: deque[tuple[float, float]] = deque()

    def observe(self, lag_s: float, now: float) -> None:
        """Something that was due `lag_s` before `now`, in seconds of any clock, came only now."""
        self.histogram.observe(lag_s)
        while self._largest and self._largest[-1][1] <= lag_s:
            self._largest.pop()
        self._largest.append((now, lag_s))
        while self._largest[0][0] < now - RECENT_S:
            self._largest.popleft()

    @property
    def max_s(self) -> float:
        """The largest of the last minute. Reading it changes nothing: there may be two readers."""
        return self._largest[0][1] if self._largest else 0.0


async def watch(lag: LoopLag) -> None:
    """Take readings of the running loop until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + SAMPLE_S
        await asyncio.sleep(SAMPLE_S)
        now = loop.time()
        lag.observe(max(0.0, now - due), now)
