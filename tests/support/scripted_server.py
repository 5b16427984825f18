"""A websocket server on port 0 that follows a script: the client under test meets a real socket."""

import asyncio
import http
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from stream_server.protocol import (
    CODECS,
    JSON_SUBPROTOCOL,
    MSGPACK_SUBPROTOCOL,
    Audio,
    ClientMessage,
    Codec,
    Done,
    Ready,
    ServerMessage,
    Start,
    Stop,
)


@dataclass(slots=True)
class Peer:
    """The server's end of one connection, and all it has received."""

    connection: ServerConnection
    received: list[ClientMessage] = field(default_factory=list)

    async def send(self, message: ServerMessage) -> None:
        await self.connection.send(self._codec.encode(message))

    async def receive(self) -> ClientMessage:
        message = self._codec.decode_client(await self.connection.recv())
        self.received.append(message)
        return message

    async def receive_until_stop(self) -> None:
        while not isinstance(await self.receive(), Stop):
            pass

    @property
    def start(self) -> Start:
        assert isinstance(self.received[0], Start)
        return self.received[0]

    @property
    def pcm(self) -> bytes:
        return b"".join(message.pcm for message in self.received if isinstance(message, Audio))

    @property
    def _codec(self) -> Codec:
        return CODECS[self.connection.subprotocol or JSON_SUBPROTOCOL]


T = TypeVar("T")
Script = Callable[[Peer], Awaitable[None]]


@dataclass(slots=True)
class ScriptedServer:
    """Runs the script once per connection."""

    script: Script
    refusal: tuple[http.HTTPStatus, dict[str, str]] | None = None
    url: str = ""
    peers: list[Peer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if self.refusal is None:
            return None
        status, headers = self.refusal
        response = connection.respond(status, "refused\n")
        response.headers.update(headers)
        return response

    async def handle(self, connection: ServerConnection) -> None:
        peer = Peer(connection)
        self.peers.append(peer)
        await self.script(peer)


@asynccontextmanager
async def running(server: ScriptedServer) -> AsyncIterator[ScriptedServer]:
    """The server on a free port of the loopback interface, with `url` filled in."""
    async with serve(
        server.handle,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(JSON_SUBPROTOCOL), Subprotocol(MSGPACK_SUBPROTOCOL)],
        process_request=server.answer,
    ) as listening:
        port = listening.sockets[0].getsockname()[1]
        server.url = f"ws://127.0.0.1:{port}"
        yield server


def ready(seq: int = 1) -> Ready:
    return Ready(seq=seq, session="s", token="t", model="scripted", resume_window_s=0)


def transcript(*messages: ServerMessage) -> Script:
    """Ready; everything until stop is read; then `messages` and done."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(ready())
        await peer.receive_until_stop()
        for message in messages:
            await peer.send(message)
        await peer.send(Done(seq=len(messages) + 2, audio_s=1.5, segments=1))

    return script


def run_beside(server: ScriptedServer, blocking: Callable[[str], T]) -> T:
    """Call `blocking(url)` in a thread while the server runs: for commands that own their loop."""

    async def both() -> T:
        async with running(server):
            return await asyncio.to_thread(blocking, server.url)

    return asyncio.run(both())
