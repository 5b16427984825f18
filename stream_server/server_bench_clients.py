"""The other end of `starling bench server`: websockets that send audio in real time.

Run in a process of its own, so that the server's CPU time is the server's alone.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from stream_server.protocol import JSON_SUBPROTOCOL, JsonCodec, Start


def send_audio(url: str, chunks: Sequence[bytes], sessions: int, interval_s: float) -> None:
    """Have `sessions` connections send until the server closes them or the process is ended.

    Each repeats `chunks`, s16le at 16 kHz, from a place of its own, one every `interval_s`.
    """
    asyncio.run(_send_all(url, chunks, sessions, interval_s))


async def _send_all(url: str, chunks: Sequence[bytes], sessions: int, interval_s: float) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(sessions):
            first = number * len(chunks) // sessions
            tasks.create_task(_send(url, chunks, first, interval_s))
            await asyncio.sleep(interval_s / sessions)


async def _send(url: str, chunks: Sequence[bytes], first: int, interval_s: float) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionClosed):
        async with connect(
            url, subprotocols=[Subprotocol(JSON_SUBPROTOCOL)], compression=None
        ) as websocket:
            reading = asyncio.create_task(_read(websocket))
            await websocket.send(JsonCodec().encode(Start()))
            due, number = loop.time(), first
            while not reading.done():
                await asyncio.sleep(due - loop.time())
                await websocket.send(chunks[number % len(chunks)])
                due, number = due + interval_s, number + 1


async def _read(websocket: ClientConnection) -> None:
    async for _ in websocket:
        pass
