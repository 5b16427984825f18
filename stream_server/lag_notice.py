"""When a client is told that its partials come less often than it asked for.

Decides that a change is worth a word: a client is not told of every step of a slide, but of one
that it can see, and always of the return to what it asked for.
"""

from typing import Final

from engine.audio.units import SAMPLE_RATE, Samples
from stream_server.protocol import WarningMessage

_WORTH_TELLING: Final = 1.5  # times as long or as short as the interval told last


class LagNotice:
    """What one client knows of the interval in force. Touched only by its session."""

    def __init__(self, asked: Samples) -> None:
        self._asked = asked
        self._told = asked

    def receive(self, interval: Samples) -> WarningMessage | None:
        """`interval` is in force now; the warning to send, if it is news."""
        longer, shorter = max(interval, self._told), min(interval, self._told)
        is_back = interval == self._asked and self._told != self._asked
        if longer < _WORTH_TELLING * shorter and not is_back:
            return None
        self._told = interval
        interval_ms = round(interval * 1000 / SAMPLE_RATE)
        state = "has caught up" if interval == self._asked else "is behind"
        return WarningMessage(
            code="lagging",
            message=f"the server {state}; partials now come every {interval_ms} ms",
            interim_interval_ms=interval_ms,
        )
