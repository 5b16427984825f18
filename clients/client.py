"""A session with the server, as an async context manager and an iterator of its messages.

    async with StreamClient("ws://127.0.0.1:8765", Start(language="en")) as client:
        await client.send_audio(pcm)
        await client.stop()
        async for message in client:
            if isinstance(message, Final):
                print(message.text)

Messages are the structs of `stream_server.protocol`. What goes wrong is a StreamError.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from types import TracebackType
from typing import Final, Self, cast
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)
from websockets.typing import Subprotocol

from stream_server.protocol import (
    CODECS,
    DEFAULT_PORT,
    JSON_SUBPROTOCOL,
    MSGPACK_SUBPROTOCOL,
    STREAM_PATH,
    Audio,
    ClientMessage,
    Done,
    ErrorMessage,
    Flush,
    FlushId,
    Keepalive,
    ProtocolError,
    Ready,
    ServerMessage,
    Start,
    Stop,
)

DEFAULT_URL: Final = f"ws://127.0.0.1:{DEFAULT_PORT}"
OPEN_TIMEOUT_S: Final = 10  # connecting and upgrading; a server that needs longer is not there


class StreamError(Exception):
    """Base of what ends a session otherwise than by `done`."""


class ConnectError(StreamError):
    """No session: the server is unreachable or refused it.

    `status` is the HTTP status of a refusal, `retry_after_s` what a server at capacity asks for.
    """

    def __init__(
        self, sentence: str, status: int | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_after_s = retry_after_s


class ServerError(StreamError):
    """The server ended the session with an `error` message."""

    def __init__(self, event: ErrorMessage) -> None:
        super().__init__(f"{event.code}: {event.message}")
        self.event = event
        self.code = event.code
        self.message = event.message


class ConnectionLostError(StreamError):
    """The connection ended before `done`, or spoke something else than the protocol."""


def stream_url(url: str) -> str:
    """The websocket address meant by `url`: http(s) becomes ws(s), a bare host gets the path."""
    if "//" not in url:
        url = f"ws://{url}"
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path if parts.path.strip("/") else STREAM_PATH
    return urlunsplit(parts._replace(scheme=scheme, path=path))


class StreamClient:
    """One session. Sending and iterating may go on in two tasks at once.

    Iterating yields every message after `ready`, up to and with `done`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        start: Start | None = None,
        *,
        api_key: str | None = None,
        msgpack: bool = False,
    ) -> None:
        self.url = stream_url(url)
        self.ready: Ready | None = None  # set once the session is open
        self._start = start or Start()
        self._api_key = api_key
        self._codec = CODECS[MSGPACK_SUBPROTOCOL if msgpack else JSON_SUBPROTOCOL]
        self._connection: ClientConnection | None = None
        self._done = False

    async def __aenter__(self) -> Self:
        self._connection = await self._connect()
        try:
            await self._send(self._start)
            opened = await self._receive()
            if not isinstance(opened, Ready):
                raise ConnectionLostError(
                    f"{self.url}: expected ready first, got {type(opened).__name__}"
                )
            self.ready = opened
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave, finished or not."""
        if self._connection is not None:
            await self._connection.close()

    async def send_audio(self, pcm: bytes) -> None:
        """Send PCM in the encoding that `start` announced, at most one second.

        Waits while the server takes no more.
        """
        await self._send(Audio(pcm=pcm))

    async def flush(self, id: FlushId = None) -> None:
        """Ask for the final of what was sent; `flushed` with this id answers."""
        await self._send(Flush(id=id))

    async def keepalive(self) -> None:
        """Keep the session while no audio flows."""
        await self._send(Keepalive())

    async def stop(self) -> None:
        """Announce the end of the audio: the last finals and `done` follow."""
        await self._send(Stop())

    async def __aiter__(self) -> AsyncIterator[ServerMessage]:
        while not self._done:
            message = await self._receive()
            self._done = isinstance(message, Done)
            yield message

    async def _connect(self) -> ClientConnection:
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else None
        try:
            return await connect(
                self.url,
                subprotocols=[Subprotocol(self._codec.subprotocol)],
                additional_headers=headers,
                compression=None,  # audio does not compress, and text this short hardly
                open_timeout=OPEN_TIMEOUT_S,
            )
        except InvalidStatus as exc:
            raise _refusal(self.url, exc) from exc
        except InvalidURI as exc:
            raise ConnectError(
                f"{self.url}: not a websocket address; accepted: ws://HOST:PORT or wss://…"
            ) from exc
        except (OSError, TimeoutError, InvalidHandshake) as exc:
            why = str(exc) or "no answer in time"
            raise ConnectError(f"cannot reach {self.url}: {why}; is the server running?") from exc

    async def _send(self, message: ClientMessage) -> None:
        try:
            await self._open_connection().send(self._codec.encode(message))
        except ConnectionClosed as exc:
            raise _lost(self.url, exc) from exc

    async def _receive(self) -> ServerMessage:
        """The next message. Raises ServerError for a fatal `error`."""
        try:
            frame = await self._open_connection().recv()
            message = self._codec.decode_server(frame)
        except ConnectionClosed as exc:
            raise _lost(self.url, exc) from exc
        except ProtocolError as exc:
            raise ConnectionLostError(f"{self.url}: {exc}") from exc
        if isinstance(message, ErrorMessage) and message.fatal:
            raise ServerError(message)
        return message

    def _open_connection(self) -> ClientConnection:
        if self._connection is None:
            raise RuntimeError("the session is not open; use `async with StreamClient(...)`")
        return self._connection


async def transcribe(
    url: str,
    audio: AsyncIterable[bytes],
    start: Start | None = None,
    *,
    api_key: str | None = None,
    msgpack: bool = False,
) -> AsyncIterator[ServerMessage]:
    """Send all of `audio`, then `stop`; meanwhile yield every message from `ready` to `done`.

    Raises StreamError, and whatever `audio` raises.
    """
    async with StreamClient(url, start, api_key=api_key, msgpack=msgpack) as client:
        yield cast(Ready, client.ready)
        failures: list[Exception] = []
        sending = asyncio.create_task(_send_all(client, audio, failures))
        try:
            async for message in client:
                yield message
        except ConnectionLostError:
            if failures:
                raise failures[0] from None
            raise
        finally:
            sending.cancel()
            await asyncio.wait([sending])


async def _send_all(
    client: StreamClient, audio: AsyncIterable[bytes], failures: list[Exception]
) -> None:
    try:
        async for chunk in audio:
            await client.send_audio(chunk)
        await client.stop()
    except ConnectionLostError:
        pass  # the reader learns of it too, and with the server's reason
    except Exception as exc:  # noqa: BLE001  # whatever the audio raises; the reader raises it
        failures.append(exc)
        await client.close()


def _refusal(url: str, exc: InvalidStatus) -> ConnectError:
    status = exc.response.status_code
    after = exc.response.headers.get("Retry-After", "")
    retry_after_s = int(after) if after.isdecimal() else None
    match status:
        case 401:
            why = "the API key is missing or wrong (--api-key)"
        case 403:
            why = "the server does not allow this origin"
        case 503:
            why = "the server is at capacity or not ready"
        case _:
            why = "no such service there"
    again = "" if retry_after_s is None else f"; try again in {retry_after_s} s"
    return ConnectError(f"{url} refused (HTTP {status}): {why}{again}", status, retry_after_s)


def _lost(url: str, exc: ConnectionClosed) -> ConnectionLostError:
    code, reason = (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (1006, "")
    return ConnectionLostError(f"{url}: closed with {code} {reason or 'and no reason'}")
