"""The whole server over real websockets; only the engine and the detector are fakes."""

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from engine.events import UtteranceId
from stream_server import protocol
from stream_server.protocol import CODECS, JSON_SUBPROTOCOL, MSGPACK_SUBPROTOCOL
from tests.support.live_server import LiveServer, live_server
from tests.support.sounds import s16le, silence, tone

ROOT = Path(__file__).parents[2]
SPEECH = s16le(np.concatenate([silence(0.5), tone(1), silence(1)]))


class Client:
    """A websocket that speaks in messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.codec = CODECS[socket.subprotocol or JSON_SUBPROTOCOL]
        self.received: list[protocol.ServerMessage] = []

    def send(self, *messages: protocol.ClientMessage) -> None:
        for message in messages:
            self.socket.send(self.codec.encode(message))

    def send_audio(self, pcm: bytes, chunk_bytes: int = 3200) -> None:
        for at in range(0, len(pcm), chunk_bytes):
            self.send(protocol.Audio(pcm=pcm[at : at + chunk_bytes]))

    def receive_until(self, kind: type[protocol.ServerMessage]) -> Any:
        while True:
            message = self.codec.decode_server(self.socket.recv())
            self.received.append(message)
            if isinstance(message, kind):
                return message

    def receive_all(self) -> int:
        """Everything up to the close; its code."""
        try:
            while True:
                self.received.append(self.codec.decode_server(self.socket.recv()))
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006

    def kinds(self) -> list[str]:
        return [type(m).__name__ for m in self.received if not isinstance(m, protocol.Ack)]

    def error(self) -> protocol.ErrorMessage:
        last = self.received[-1]
        assert isinstance(last, protocol.ErrorMessage)
        return last


@contextmanager
def dialled(
    server: LiveServer, subprotocol: str | None = None, **options: Any
) -> Iterator[ClientConnection]:
    offered = None if subprotocol is None else [Subprotocol(subprotocol)]
    with connect(server.url, subprotocols=offered, compression=None, **options) as socket:
        yield socket


Dial = Callable[..., Client]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Clients that hang up when the test ends."""
    with ExitStack() as open_sockets:

        def connected(server: LiveServer, *args: Any, **options: Any) -> Client:
            return Client(open_sockets.enter_context(dialled(server, *args, **options)))

        yield connected


def until(reached: Callable[[], bool]) -> None:
    while not reached():
        time.sleep(0.002)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    """One server for the tests that leave it as they found it."""
    with live_server(max_message_bytes=200_000) as running:
        yield running


def assert_serves(server: LiveServer) -> None:
    """A session from start to done works."""
    with dialled(server) as socket:
        client = Client(socket)
        client.send(protocol.Start())
        client.send_audio(SPEECH)
        client.send(protocol.Stop())
        assert client.receive_all() == 1000
        assert client.kinds()[-2:] == ["Final", "Done"]


@pytest.mark.parametrize("subprotocol", [None, JSON_SUBPROTOCOL, MSGPACK_SUBPROTOCOL])
def test_a_conversation_in_every_encoding(
    dial: Dial, server: LiveServer, subprotocol: str | None
) -> None:
    client = dial(server, subprotocol)
    assert client.socket.subprotocol == subprotocol
    client.send(protocol.Start(word_timestamps=True))
    client.send_audio(SPEECH)
    client.send(protocol.Flush(id="x"))
    client.send_audio(SPEECH)
    client.send(protocol.Stop())
    assert client.receive_all() == 1000
    assert [m.seq for m in client.received] == list(range(1, len(client.received) + 1))
    finals = [m for m in client.received if isinstance(m, protocol.Final)]
    assert [m.segment for m in finals] == [0, 1]
    # 300 ms before the speech at 0.5 s to 200 ms after its last VAD frame, in both utterances.
    assert [(m.start, m.end) for m in finals] == [(0.18, 1.704), (2.676, 4.2)]
    assert isinstance(finals[0].words, list)
    assert finals[0].words[0] == protocol.Word(word="w0", start=0.18, end=0.38, confidence=0.9)
    flushed = next(m for m in client.received if isinstance(m, protocol.Flushed))
    assert finals[0].seq < flushed.seq < finals[1].seq
    assert client.received[-1] == protocol.Done(seq=client.received[-1].seq, audio_s=5, segments=2)


def test_the_first_offer_that_is_known_is_taken(server: LiveServer) -> None:
    offers = [Subprotocol(name) for name in ("other", MSGPACK_SUBPROTOCOL, JSON_SUBPROTOCOL)]
    with connect(server.url, subprotocols=offers) as socket:
        assert socket.subprotocol == MSGPACK_SUBPROTOCOL


def test_compression_is_not_agreed_on(server: LiveServer) -> None:
    with connect(server.url, compression="deflate") as socket:
        assert socket.protocol.extensions == []


def test_a_flush_in_the_midst_of_speech_loses_and_doubles_nothing(
    dial: Dial, server: LiveServer
) -> None:
    client = dial(server)
    client.send(protocol.Start())
    client.send_audio(s16le(tone(1.01)))
    client.send(protocol.Flush(id=1))
    client.send_audio(s16le(tone(1)))
    client.send(protocol.Stop())
    client.receive_all()
    finals = [m for m in client.received if isinstance(m, protocol.Final)]
    assert [(m.start, m.end) for m in finals] == [(0, 1.01), (1.01, 2.01)]


# --- the error table --------------------------------------------------------------------------

JUNK_CASES: list[tuple[str | None, list[str | bytes], str, int]] = [
    (None, ["nonsense"], "bad_message", 1007),
    (None, ['{"type": "start", "vad_threshold": NaN}'], "bad_message", 1007),
    (None, ["[" * 50_000], "bad_message", 1007),
    (None, ['{"type": "begin"}'], "bad_message", 1008),
    (None, ['{"type": "start", "type": "start"}'], "bad_message", 1008),
    (None, ['{"type": "start", "sample_rate": 96000}'], "bad_message", 1008),
    (MSGPACK_SUBPROTOCOL, [b"\xc1"], "bad_message", 1007),
    (MSGPACK_SUBPROTOCOL, [b"\x80\x80"], "bad_message", 1007),
    (MSGPACK_SUBPROTOCOL, ['{"type": "start"}'], "bad_message", 1008),
    (MSGPACK_SUBPROTOCOL, [b"\x90"], "bad_message", 1008),
    (None, ['{"type": "start", "encoding": "opus"}'], "unsupported", 1008),
    (None, ['{"type": "start", "language": "en-US"}'], "unsupported", 1008),
    (None, ['{"type": "start", "task": "sing"}'], "unsupported", 1008),
    (
        None,
        ['{"type": "resume", "session": "a", "token": "b", "last_seq": 0}'],
        "unsupported",
        1008,
    ),
    (None, [b"\0\0"], "not_started", 1008),
    (None, ['{"type": "stop"}'], "not_started", 1008),
    (None, ['{"type": "start"}', '{"type": "start"}'], "already_started", 1008),
    (None, ['{"type": "start"}', bytes(32_002)], "message_too_large", 1009),
    (None, ["x" * 200_001], "message_too_large", 1009),
    (MSGPACK_SUBPROTOCOL, [bytes(200_001)], "message_too_large", 1009),
]


@pytest.mark.parametrize(("subprotocol", "frames", "code", "close_code"), JUNK_CASES)
def test_every_fault_gets_its_row_of_the_error_table(
    dial: Dial,
    server: LiveServer,
    subprotocol: str | None,
    frames: list[str | bytes],
    code: str,
    close_code: int,
) -> None:
    client = dial(server, subprotocol)
    for frame in frames:
        client.socket.send(frame)
    assert client.receive_all() == close_code
    assert client.error().code == code
    assert client.error().fatal
    assert_serves(server)


def test_a_frame_beyond_all_bounds_is_closed_without_being_read(
    dial: Dial, server: LiveServer
) -> None:
    client = dial(server)
    client.socket.send(b"\0" * 900_000)
    assert client.receive_all() == 1009
    assert client.received == []


def test_text_that_is_not_utf_8_is_closed_with_1007(dial: Dial, server: LiveServer) -> None:
    client = dial(server)
    with client.socket.protocol_mutex:
        frame = Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True)
    client.socket.socket.sendall(frame)
    assert client.receive_all() == 1007
    assert_serves(server)


def test_audio_that_is_not_finite_is_a_bad_message(dial: Dial, server: LiveServer) -> None:
    client = dial(server)
    client.send(protocol.Start(encoding="pcm_f32le"))
    client.send(protocol.Audio(pcm=np.array([np.inf], "<f4").tobytes()))
    assert client.receive_all() == 1008
    assert client.error().code == "bad_message"


def test_an_idle_client_gets_its_finals_and_then_the_error(dial: Dial) -> None:
    with live_server(idle_timeout_s=0.2) as server:
        client = dial(server)
        client.send(protocol.Start())
        client.send_audio(s16le(tone(1)))
        assert client.receive_all() == 1008
        assert client.kinds()[-2:] == ["Final", "ErrorMessage"]
        assert client.error().code == "idle_timeout"


def test_keepalive_keeps_a_session(dial: Dial) -> None:
    with live_server(idle_timeout_s=0.5) as server:
        client = dial(server)
        client.send(protocol.Start())
        for _ in range(8):
            time.sleep(0.1)
            client.send(protocol.Keepalive())
        client.send(protocol.Stop())
        assert client.receive_all() == 1000


def test_a_failed_utterance_ends_its_session_and_no_other(dial: Dial) -> None:
    with live_server() as server:
        other = dial(server)
        other.send(protocol.Start())
        other.receive_until(protocol.Ready)
        server.engine.failing = "out of memory"
        client = dial(server)
        client.send(protocol.Start())
        client.send_audio(SPEECH)
        assert client.receive_all() == 1011
        assert client.error().code == "engine_failure"
        server.engine.failing = None
        other.send_audio(SPEECH)
        other.send(protocol.Stop())
        assert other.receive_all() == 1000
        assert other.kinds()[-2:] == ["Final", "Done"]


# --- who is let in ----------------------------------------------------------------------------


def refused(server: LiveServer, **options: Any) -> Any:
    with pytest.raises(InvalidStatus) as caught, dialled(server, **options):
        pass
    return caught.value.response


def test_a_key_is_asked_for_before_the_upgrade(dial: Dial) -> None:
    with live_server(api_key=["secret"]) as server:
        assert refused(server).status_code == 401
        assert refused(server).headers["www-authenticate"] == "Bearer"
        wrong = {"Authorization": "Bearer secre"}
        assert refused(server, additional_headers=wrong).status_code == 401
        assert refused(server, subprotocol="bearer.wrong").status_code == 401
        right = dial(server, additional_headers={"Authorization": "Bearer secret"})
        right.socket.close()
        offers = [Subprotocol(JSON_SUBPROTOCOL), Subprotocol("bearer.secret")]
        with connect(server.url, subprotocols=offers) as socket:
            assert socket.subprotocol == JSON_SUBPROTOCOL


def test_a_page_of_another_origin_is_refused_before_the_upgrade(dial: Dial) -> None:
    with live_server(allowed_origin=["https://app.example"]) as server:
        evil = refused(server, origin=Origin("https://evil.example"))
        assert evil.status_code == 403
        for origin in ("https://app.example", f"http://127.0.0.1:{server.port}"):
            dial(server, origin=Origin(origin)).socket.close()


def test_a_server_at_capacity_says_when_to_come_back(
    dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    with live_server(max_sessions=1) as server:
        first = dial(server)
        full = refused(server)
        assert full.status_code == 503
        assert full.headers["retry-after"] == "2"
        assert "without completing handshake" not in caplog.text  # a refusal is no error
        first.send(protocol.Start(), protocol.Stop())
        assert first.receive_all() == 1000
        until(lambda: server.detector.num_open == 0)
        assert_serves(server)


def test_another_path_is_not_found(server: LiveServer) -> None:
    elsewhere = server.url.replace("/v1/stream", "/v2/stream")
    with pytest.raises(InvalidStatus) as caught, connect(elsewhere):
        pass
    assert caught.value.response.status_code in (403, 404)


def status_of(url: str) -> int:
    try:
        with urlopen(url) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def test_plain_http_answers_on_the_same_port(server: LiveServer) -> None:
    assert status_of(server.http("/healthz")) == 200
    assert status_of(server.http("/readyz")) == 200
    assert status_of(server.http("/")) == 200
    with urlopen(server.http("/v1/models")) as answer:
        assert json.load(answer)["data"][0]["id"] == "memory"


# --- clients that vanish and clients that babble ----------------------------------------------


def test_a_killed_clients_utterance_is_cancelled_and_its_place_is_free(dial: Dial) -> None:
    with live_server(max_sessions=1) as server:
        client = dial(server)
        client.send(protocol.Start())
        client.send_audio(s16le(tone(1)))
        client.receive_until(protocol.Partial)
        client.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.socket.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: server.engine.utterances[UtteranceId(1)].cancelled)
        until(lambda: server.detector.num_open == 0)
        assert_serves(server)


def test_random_bytes_end_neither_the_server_nor_another_session(
    dial: Dial, server: LiveServer
) -> None:
    steady = dial(server)
    steady.send(protocol.Start())
    chance = random.Random(5)
    for turn in range(40):
        client = dial(server, chance.choice([JSON_SUBPROTOCOL, MSGPACK_SUBPROTOCOL]))
        if turn % 2:
            client.send(protocol.Start())
        try:
            for _ in range(4):
                junk = chance.randbytes(chance.randrange(300))
                client.socket.send(junk if chance.random() < 0.7 else junk.decode("latin-1"))
        except ConnectionClosed:
            pass
        client.socket.close()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(chance.randbytes(400))
    steady.send_audio(SPEECH)
    steady.send(protocol.Stop())
    assert steady.receive_all() == 1000
    assert steady.kinds()[-2:] == ["Final", "Done"]


def test_a_client_that_sends_at_once_loses_nothing(dial: Dial, server: LiveServer) -> None:
    client = dial(server)
    client.send(protocol.Start())
    client.send_audio(s16le(np.concatenate([tone(8), silence(2)] * 7)), chunk_bytes=32_000)
    client.send(protocol.Stop())
    assert client.receive_all() == 1000
    done = client.received[-1]
    assert isinstance(done, protocol.Done)
    assert (done.audio_s, done.segments) == (70, 7)
    finals = [m for m in client.received if isinstance(m, protocol.Final)]
    assert all(m.end - m.start > 8.19 for m in finals)


# --- the end ----------------------------------------------------------------------------------


def test_a_drain_finalises_open_sessions(dial: Dial) -> None:
    with live_server() as server:
        client = dial(server)
        client.send(protocol.Start())
        client.send_audio(s16le(tone(1)))
        client.receive_until(protocol.Partial)
        server.server.should_exit = True
        assert client.receive_all() == 1012
        assert client.kinds()[-2:] == ["Final", "ErrorMessage"]
        assert client.error().code == "shutting_down"
        server.thread.join()


def test_a_drain_gives_up_what_takes_too_long(dial: Dial) -> None:
    with live_server(drain_timeout_s=0.1) as server:
        server.engine.hold()
        client = dial(server)
        client.send(protocol.Start())
        client.send_audio(s16le(tone(1)))
        client.receive_until(protocol.Partial)
        server.server.should_exit = True
        assert client.receive_all() == 1012
        assert client.kinds()[-1] == "ErrorMessage"
        assert "Final" not in client.kinds()


def test_a_failed_engine_closes_every_session_and_the_server(dial: Dial) -> None:
    with live_server() as server:
        client = dial(server)
        client.send(protocol.Start())
        client.receive_until(protocol.Ready)
        server.engine.break_down(RuntimeError("lost the device"))
        assert client.receive_all() == 1011
        assert client.error().code == "engine_failure"
        server.thread.join()
        assert server.service.condition.failure is not None


@contextmanager
def process(mode: str, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    """A server process and a client that is speaking to it."""
    command = [sys.executable, "-m", "tests.support.memory_server", mode, *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            ready_line = running.stdout.readline().decode()
            with connect(ready_line.split()[1].rstrip(",")) as socket:
                client = Client(socket)
                client.send(protocol.Start())
                client.send_audio(s16le(tone(1)))
                client.receive_until(protocol.Partial)
                yield running, client
        finally:
            running.kill()


def test_a_signal_drains_and_ends_with_status_0() -> None:
    with process("free") as (running, client):
        running.send_signal(signal.SIGTERM)
        assert client.receive_all() == 1012
        assert "Final" in client.kinds()
        assert running.wait() == 0


def test_a_second_signal_does_not_wait() -> None:
    with process("held", "--drain-timeout-s", "600") as (running, client):
        running.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.5)
        running.send_signal(signal.SIGINT)
        assert client.receive_all() == 1012
        assert "Final" not in client.kinds()
        assert running.wait() == 0
