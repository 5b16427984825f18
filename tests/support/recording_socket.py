"""The ASGI side of a websocket: what a client sent is given, what it is sent is recorded."""

import asyncio
from collections import deque
from typing import Any

from stream_server.connection import AsgiMessage


class RecordingSocket:
    """`receive` and `write` as ASGI has them. Closing from the server's side disconnects."""

    def __init__(self) -> None:
        self.frames: list[str | bytes] = []
        self.close: tuple[int, str] | None = None
        self.num_unread = 0
        self._incoming: asyncio.Queue[AsgiMessage] = asyncio.Queue()
        self._tap = asyncio.Event()
        self._tap.set()
        self._waiters: deque[tuple[int, asyncio.Event]] = deque()

    def client_sends(self, *frames: str | bytes) -> None:
        for frame in frames:
            kind = "text" if isinstance(frame, str) else "bytes"
            self.num_unread += 1
            self._incoming.put_nowait({"type": "websocket.receive", kind: frame})

    def client_leaves(self) -> None:
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})

    def stop_reading(self) -> None:
        """The client takes nothing more until `go_on_reading`."""
        self._tap.clear()

    def go_on_reading(self) -> None:
        self._tap.set()

    async def wait_for_frames(self, count: int) -> None:
        """Until the client has been sent that many."""
        reached = asyncio.Event()
        self._waiters.append((count, reached))
        self._notify()
        await reached.wait()

    async def receive(self) -> AsgiMessage:
        message = await self._incoming.get()
        if message["type"] == "websocket.receive":
            self.num_unread -= 1
        return message

    async def write(self, message: Any) -> None:
        await self._tap.wait()
        if message["type"] == "websocket.close":
            self.close = (message["code"], message["reason"])
            self.client_leaves()
        else:
            frame = message.get("text")
            self.frames.append(message["bytes"] if frame is None else frame)
        self._notify()

    def _notify(self) -> None:
        for count, reached in self._waiters:
            if len(self.frames) >= count:
                reached.set()
