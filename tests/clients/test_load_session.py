import asyncio
import http
import socket
import time
from collections.abc import Iterator

from clients.load_meter import SessionRecord
from clients.load_plan import Part, SessionPlan
from clients.load_session import BLOCKED_S, SimulatedSession, Tally, Target
from stream_server.protocol import (
    Audio,
    Done,
    ErrorMessage,
    Final,
    SpeechStopped,
    Start,
    Stop,
)
from tests.support.scripted_server import (
    Peer,
    Script,
    ScriptedServer,
    ready,
    running,
    transcript,
)

CHUNKS = [bytes([number]) * 640 for number in range(1, 6)]  # of 20 ms each
START = Start(language="en", interim_interval_ms=300)


def plan(*, msgpack: bool = False, starts_at_s: float = 0.0) -> SessionPlan:
    return SessionPlan(3, "speech", msgpack, starts_at_s, (Part(None, 0, 1600),), "")


def lived(
    server: ScriptedServer, plan: SessionPlan, *, speed: float = 100.0, **target: object
) -> tuple[SessionRecord, Tally]:
    async def session() -> tuple[SessionRecord, Tally]:
        async with running(server):
            tally = Tally()
            to = Target(server.url, START, speed=speed, **target)  # type: ignore[arg-type]
            simulated = SimulatedSession(plan, iter(CHUNKS), to, tally, time.monotonic())
            assert not simulated.ended
            await simulated.run()
            assert simulated.ended
            assert tally.num_open == 0
            return simulated.meter.record, tally

    return asyncio.run(session())


def test_a_plan_is_lived_through_from_start_to_done() -> None:
    server = ScriptedServer(transcript())
    record, tally = lived(server, plan())
    (peer,) = server.peers
    assert peer.received == [START, *(Audio(pcm=chunk) for chunk in CHUNKS), Stop()]
    assert peer.connection.subprotocol == "asr.json.v1"
    assert (record.number, record.outcome) == (3, "done")
    assert record.audio_s == 0.1
    assert record.missing_finals == 1
    assert [len(record.samples[name]) for name in ("connect_s", "stop_to_done_s")] == [1, 1]
    assert sum(tally.lateness.counts) == len(CHUNKS)


def test_the_plan_or_the_command_chooses_messagepack_and_the_key_is_shown() -> None:
    for asked, msgpack in ((plan(msgpack=True), False), (plan(), True)):
        server = ScriptedServer(transcript())
        lived(server, asked, all_msgpack=msgpack, api_key="secret")
        assert server.peers[0].connection.subprotocol == "asr.msgpack.v1"
        assert server.requests[0].headers["Authorization"] == "Bearer secret"


def test_latency_counts_from_when_audio_was_due_however_late_it_was_sent() -> None:
    """Or a generator that is stopped, by itself or by the server, would hide what it measures."""
    stopped = SpeechStopped(seq=2, at=0.05)
    final = Final(
        seq=3,
        segment=0,
        start=0.0,
        end=0.05,
        text="a",
        language="en",
        language_probability=1.0,
        confidence=1.0,
        no_speech_prob=0.0,
    )
    server = ScriptedServer(transcript(stopped, final))

    def interrupted() -> Iterator[bytes]:
        for number in range(12):
            if number == 2:
                time.sleep(0.3)  # holds up the loop as a busy process would
            yield bytes(640)

    async def session() -> SessionRecord:
        async with running(server):
            to = Target(server.url, Start(endpoint_silence_ms=100))
            simulated = SimulatedSession(plan(), interrupted(), to, Tally(), time.monotonic())
            await simulated.run()
            return simulated.meter.record

    ((_, final_s),) = asyncio.run(session()).samples["final_s"]
    assert final_s > 0.3 + 0.04 - 0.06


def test_time_spent_waiting_for_a_server_that_does_not_read_is_told() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(ready())
        await asyncio.sleep(0.1)
        await peer.receive_until_stop()
        await peer.send(Done(seq=2, audio_s=0.0, segments=0))

    async def session() -> tuple[SessionRecord, Tally]:
        async with running(ScriptedServer(script)) as server:
            tally, to = Tally(), Target(server.url, START, speed=1e6)
            more_than_buffers_hold = iter([bytes(500_000)] * 80)
            simulated = SimulatedSession(
                plan(), more_than_buffers_hold, to, tally, time.monotonic()
            )
            await simulated.run()
            return simulated.meter.record, tally

    record, tally = asyncio.run(session())
    assert record.outcome == "done"
    assert tally.blocked_s > BLOCKED_S


def test_a_session_waits_for_its_turn() -> None:
    server = ScriptedServer(transcript())
    record, _ = lived(server, plan(starts_at_s=5.0), speed=100.0)
    ((ready_at, took_s),) = record.samples["connect_s"]
    assert ready_at - took_s >= 0.05


def test_a_refusal_is_kept_with_its_retry_after() -> None:
    refusal = (http.HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "7"})
    record, tally = lived(ScriptedServer(transcript(), refusal=refusal), plan())
    assert (record.outcome, record.failure, record.retry_after_s) == ("refused", "HTTP 503", 7)
    assert sum(tally.lateness.counts) == 0


def failed(script: Script) -> tuple[str | None, str | None]:
    record, _ = lived(ScriptedServer(script), plan())
    assert record.outcome == "failed"
    return record.failure, record.sentence


def test_an_error_of_the_server_is_kept_by_its_code() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(ready())
        await peer.receive()
        await peer.send(ErrorMessage(seq=2, code="engine_failure", message="out of memory"))
        await peer.connection.close(1011)

    assert failed(script) == ("engine_failure", "out of memory")


def test_a_connection_that_is_lost_is_kept_with_its_close_code() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(ready())
        await peer.connection.close(1011, "keepalive ping timeout")

    failure, sentence = failed(script)
    assert failure == "connection_lost"
    assert sentence is not None
    assert sentence.endswith("closed with 1011 keepalive ping timeout")


def test_a_server_that_is_not_there_is_a_failure_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
    session = SimulatedSession(plan(), iter(CHUNKS), Target(url, START), Tally(), time.monotonic())
    asyncio.run(session.run())
    assert session.meter.record.failure == "unreachable"


def test_a_server_that_owes_done_is_not_waited_for_for_ever() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(ready())
        await peer.receive_until_stop()
        await peer.connection.wait_closed()

    async def session() -> SimulatedSession:
        async with running(ScriptedServer(script)) as server:
            to = Target(server.url, START, speed=100.0, done_timeout_s=0.05)
            simulated = SimulatedSession(plan(), iter(CHUNKS), to, Tally(), time.monotonic())
            await simulated.run()
            return simulated

    record = asyncio.run(session()).meter.record
    assert (record.outcome, record.failure) == ("failed", "no_done")
    assert record.sentence == "no done within 0.05 s of the last audio"


def test_done_before_stop_ends_the_session_as_well() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(ready())
        await peer.send(Done(seq=2, audio_s=0.0, segments=0))
        await peer.receive_until_stop()

    record, _ = lived(ScriptedServer(script), plan())
    assert record.outcome == "done"
    assert record.samples["stop_to_done_s"] == []
