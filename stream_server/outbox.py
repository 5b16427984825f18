"""What waits to be sent to one client, and the number each message goes out under.

Decides what a slow reader is spared: only the newest partial of a segment and the newest ack
wait, in the place of the first; a final takes the place of its segment's partial. Everything
else is kept in order. `seq` is given on the way out, so it has no gaps.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from stream_server import protocol

_ACK: Final = "ack"


class Outbox:
    """Messages of one session towards its client. Touched only by its connection's task.

    Unbounded in finals, which are never dropped: a reader that takes nothing at all answers no
    ping either, and the ping timeout ends its connection.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, protocol.ServerMessage] = OrderedDict()
        self._num_put = 0
        self._seq = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: protocol.ServerMessage) -> None:
        """Add a message, or renew one that it supersedes."""
        match message:
            case protocol.Partial(segment=segment):
                self._waiting[segment] = message
            case protocol.Ack():
                self._waiting[_ACK] = message
            case protocol.Final(segment=segment):
                self._waiting.pop(segment, None)
                self._append(message)
            case _:
                self._append(message)

    def take(self) -> protocol.ServerMessage | None:
        """The next message, numbered; None where nothing waits."""
        if not self._waiting:
            return None
        _, message = self._waiting.popitem(last=False)
        self._seq += 1
        return protocol.numbered(message, self._seq)

    def _append(self, message: protocol.ServerMessage) -> None:
        self._num_put += 1
        self._waiting["message", self._num_put] = message
