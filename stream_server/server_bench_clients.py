"""The other end of `starling bench server`: websockets that send audio in real time.

Run in a process of its own, so that the server's CPU time is the server's alone.
"""

import asyncio
import contextlib

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from stream_server.protocol import JSON_SUBPROTOCOL, JsonCodec, Start


def send_audio(url: str, audio: bytes, sessions: int, chunk_bytes: int, interval_s: float) -> None:
    """Keep `sessions` connections sending, each from a place of its own, until terminated.

    `audio` is s16le at 16 kHz and is repeated; a chunk of it goes out every `interval_s`.
    """
    asyncio.run(_send_all(url, audio, sessions, chunk_bytes, interval_s))


async def _send_all(
    url: str, audio: bytes, sessions: int, chunk_bytes: int, interval_s: float
) -> None:
    chunks = [audio[at : at + chunk_bytes] for at in range(0, len(audio), chunk_bytes)]
    # One chunk shorter than the others at most, and it would shift everything behind it.
    chunks = [chunk for chunk in chunks if len(chunk) == chunk_bytes]
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as tasks:
        for number in range(sessions):
            first = number * len(chunks) // sessions
            start_at = began + interval_s * number / sessions
            tasks.create_task(_send(url, chunks, first, start_at, interval_s))


async def _send(
    url: str, chunks: list[bytes], first: int, start_at: float, interval_s: float
) -> None:
    loop = asyncio.get_running_loop()
    # The server is stopped first, and its clients with it.
    with contextlib.suppress(ConnectionClosed):
        async with connect(url, subprotocols=[Subprotocol(JSON_SUBPROTOCOL)], compression=None) as websocket:
            await websocket.send(JsonCodec().encode(Start()))
            reading = asyncio.create_task(_read(websocket))
            due, number = start_at + interval_s, first
            while not reading.done():
                await asyncio.sleep(due - loop.time())
                await websocket.send(chunks[number % len(chunks)])
                due, number = due + interval_s, number + 1


async def _read(websocket: ClientConnection) -> None:
    async for _ in websocket:
        pass
