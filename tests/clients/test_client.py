import asyncio
import http
import socket
from collections.abc import AsyncIterator

import pytest

from clients.client import (
    ConnectError,
    ConnectionLostError,
    ServerError,
    StreamClient,
    StreamError,
    stream_url,
    transcribe,
)
from stream_server.protocol import (
    Audio,
    Done,
    ErrorMessage,
    Final,
    Flush,
    Flushed,
    Keepalive,
    Ready,
    ServerMessage,
    Start,
    Stop,
)
from tests.support.scripted_server import Peer, ScriptedServer, ready, running, transcript

FINAL = Final(
    seq=2,
    segment=0,
    start=0.2,
    end=1.2,
    text="hello",
    language="en",
    language_probability=1.0,
    confidence=0.9,
    no_speech_prob=0.0,
)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def collect(
    url: str, audio: AsyncIterator[bytes], *, msgpack: bool = False
) -> list[ServerMessage]:
    return [message async for message in transcribe(url, audio, msgpack=msgpack)]


@pytest.mark.parametrize("msgpack", [False, True])
def test_everything_said_on_either_side_arrives(msgpack: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(ready())
        await peer.receive_until_stop()
        await peer.send(FINAL)
        await peer.send(Flushed(seq=3, id="now", at=0.5))
        await peer.send(Done(seq=4, audio_s=1.5, segments=1))

    async def session() -> None:
        async with running(ScriptedServer(script)) as server:
            start = Start(language="en", prompt="größer")
            async with StreamClient(server.url, start, msgpack=msgpack) as client:
                assert client.ready == ready()
                await client.send_audio(b"\x01\x02")
                await client.flush("now")
                await client.keepalive()
                await client.stop()
                heard = [message async for message in client]
            (peer,) = server.peers
            assert peer.received == [
                start,
                Audio(pcm=b"\x01\x02"),
                Flush(id="now"),
                Keepalive(),
                Stop(),
            ]
            assert [type(message) for message in heard] == [Final, Flushed, Done]
            assert heard[0] == FINAL

    asyncio.run(session())


@pytest.mark.parametrize("msgpack", [False, True])
def test_transcribe_sends_all_audio_and_yields_from_ready_to_done(msgpack: bool) -> None:
    async def session() -> None:
        async with running(ScriptedServer(transcript(FINAL))) as server:
            heard = await collect(server.url, chunks(b"ab", b"cd"), msgpack=msgpack)
            assert [type(message) for message in heard] == [Ready, Final, Done]
            assert server.peers[0].pcm == b"abcd"

    asyncio.run(session())


def test_the_api_key_is_sent_as_a_bearer_token() -> None:
    async def session() -> None:
        async with running(ScriptedServer(transcript())) as server:
            async with StreamClient(server.url, api_key="secret") as client:
                await client.stop()
                assert [type(message) async for message in client] == [Done]
            assert server.requests[0].headers["Authorization"] == "Bearer secret"
            assert server.requests[0].path == "/v1/stream"

    asyncio.run(session())


def test_a_fatal_error_is_raised_with_its_code_and_message() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(ErrorMessage(seq=1, code="unsupported", message="no Klingon here"))
        await peer.connection.close(1008)

    async def session() -> None:
        async with running(ScriptedServer(script)) as server:
            with pytest.raises(ServerError, match="unsupported: no Klingon here") as caught:
                async with StreamClient(server.url):
                    pass
            assert caught.value.code == "unsupported"
            assert caught.value.message == "no Klingon here"

    asyncio.run(session())


def test_an_error_in_the_middle_wins_over_the_broken_sending() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(ready())
        await peer.receive()
        await peer.send(ErrorMessage(seq=2, code="engine_failure", message="out of memory"))
        await peer.connection.close(1011)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1280)
            await asyncio.sleep(0)

    async def session() -> None:
        async with running(ScriptedServer(script)) as server:
            with pytest.raises(ServerError, match="out of memory"):
                await collect(server.url, endless())

    asyncio.run(session())


def test_an_error_that_is_not_fatal_is_a_message_like_others() -> None:
    mild = ErrorMessage(seq=2, code="unsupported", message="ignored", fatal=False)

    async def session() -> None:
        async with running(ScriptedServer(transcript(mild))) as server:
            heard = await collect(server.url, chunks())
            assert heard[1] == mild

    asyncio.run(session())


def test_a_connection_that_ends_before_done_is_lost() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(ready())
        await peer.connection.close(1012, "restart")

    async def session() -> None:
        async with running(ScriptedServer(script)) as server:
            with pytest.raises(ConnectionLostError, match="closed with 1012 restart"):
                await collect(server.url, chunks(b"ab"))

    asyncio.run(session())


@pytest.mark.parametrize("frame", ["{", '{"type": "nonsense"}', b"\x00"])
def test_a_server_that_speaks_something_else_is_reported(frame: str | bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.connection.send(frame)
        await peer.connection.wait_closed()

    async def session() -> None:
        async with running(ScriptedServer(script)) as server:
            with pytest.raises(ConnectionLostError):
                async with StreamClient(server.url):
                    pass

    asyncio.run(session())


def test_a_server_that_does_not_begin_with_ready_is_reported() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(FINAL)
        await peer.connection.wait_closed()

    async def session() -> None:
        async with running(ScriptedServer(script)) as server:
            with pytest.raises(ConnectionLostError, match="expected ready first, got Final"):
                async with StreamClient(server.url):
                    pass

    asyncio.run(session())


def test_audio_that_fails_ends_the_session_with_its_own_exception() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"ab"
        raise OSError("the cable was pulled")

    async def session() -> None:
        async with running(ScriptedServer(transcript())) as server:
            with pytest.raises(OSError, match="the cable was pulled"):
                await collect(server.url, failing())

    asyncio.run(session())


@pytest.mark.parametrize(
    ("status", "headers", "sentence", "retry_after_s"),
    [
        (http.HTTPStatus.UNAUTHORIZED, {}, r"HTTP 401.*API key", None),
        (http.HTTPStatus.FORBIDDEN, {}, r"HTTP 403.*origin", None),
        (http.HTTPStatus.NOT_FOUND, {}, r"HTTP 404.*no such service", None),
        (
            http.HTTPStatus.SERVICE_UNAVAILABLE,
            {"Retry-After": "7"},
            r"HTTP 503.*capacity.*try again in 7 s",
            7,
        ),
    ],
)
def test_a_refusal_says_why_and_when_to_come_back(
    status: http.HTTPStatus, headers: dict[str, str], sentence: str, retry_after_s: int | None
) -> None:
    async def session() -> None:
        async with running(ScriptedServer(transcript(), refusal=(status, headers))) as server:
            with pytest.raises(ConnectError, match=sentence) as caught:
                async with StreamClient(server.url):
                    pass
            assert caught.value.status == status
            assert caught.value.retry_after_s == retry_after_s

    asyncio.run(session())


def test_an_unreachable_server_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def session() -> None:
        with pytest.raises(ConnectError, match=f"cannot reach ws://127.0.0.1:{port}/v1/stream"):
            async with StreamClient(f"127.0.0.1:{port}"):
                pass

    asyncio.run(session())


def test_an_address_that_is_none_is_refused() -> None:
    async def session() -> None:
        with pytest.raises(ConnectError, match="not a websocket address"):
            async with StreamClient("ftp://example.org"):
                pass

    asyncio.run(session())


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("localhost:8765", "ws://localhost:8765/v1/stream"),
        ("ws://host", "ws://host/v1/stream"),
        ("http://host:1/", "ws://host:1/v1/stream"),
        ("https://host", "wss://host/v1/stream"),
        ("wss://host/behind/a/proxy", "wss://host/behind/a/proxy"),
    ],
)
def test_the_short_forms_of_an_address_are_completed(given: str, meant: str) -> None:
    assert stream_url(given) == meant


def test_every_error_of_a_session_is_a_stream_error() -> None:
    assert all(
        issubclass(kind, StreamError) for kind in (ConnectError, ServerError, ConnectionLostError)
    )
