import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from engine.audio.units import SAMPLE_RATE
from engine.events import UtteranceId
from stream_server import protocol
from stream_server.connection import HIGH_WATER_SAMPLES, Connection, ConnectionLimits
from stream_server.errors import ShuttingDownError
from stream_server.loop_mailbox import LoopMailbox
from stream_server.protocol import JsonCodec
from stream_server.session import Session
from stream_server.session_meter import SessionMeter
from stream_server.totals import Totals
from tests.support.memory_engine import MODEL, MemoryEngine
from tests.support.recording_socket import RecordingSocket
from tests.support.scripted_detector import ScriptedDetector
from tests.support.sounds import s16le, silence, tone

CODEC = JsonCodec()
START = str(CODEC.encode(protocol.Start()))
STOP = str(CODEC.encode(protocol.Stop()))


class Stage:
    """A connection with both its neighbours running."""

    def __init__(self, *, max_message_bytes: int = 100_000, idle_timeout_s: float = 60) -> None:
        self.engine = MemoryEngine()
        self.detector = ScriptedDetector()
        self.socket = RecordingSocket()
        self.totals = Totals()
        self.session = Session("session", "token", MODEL, self.engine.new_utterance_id)
        self.connection = Connection(
            self.session,
            CODEC,
            self.engine,
            self.detector,
            ConnectionLimits(max_message_bytes, idle_timeout_s),
            SessionMeter(self.totals),
            LoopMailbox(asyncio.get_running_loop()),
            self.socket.receive,
            self.socket.write,
        )

    def messages(self) -> list[protocol.ServerMessage]:
        return [CODEC.decode_server(frame) for frame in self.socket.frames]

    def kinds(self) -> list[str]:
        return [type(m).__name__ for m in self.messages() if not isinstance(m, protocol.Ack)]

    def error(self) -> protocol.ErrorMessage:
        last = self.messages()[-1]
        assert isinstance(last, protocol.ErrorMessage)
        return last


@asynccontextmanager
async def staged(**limits: float) -> AsyncIterator[Stage]:
    stage = Stage(**limits)  # type: ignore[arg-type]
    stage.engine.start()
    stage.detector.start()
    try:
        yield stage
    finally:
        stage.engine.let_go()
        stage.detector.let_go()
        stage.detector.stop()
        stage.engine.stop()


async def until(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110  # what is awaited is another thread's doing
        await asyncio.sleep(0.001)


def audio(*parts: np.ndarray[tuple[int], np.dtype[np.float32]]) -> list[bytes]:
    pcm = s16le(np.concatenate(parts))
    return [pcm[at : at + 3200] for at in range(0, len(pcm), 3200)]


def test_a_conversation_runs_from_start_to_done() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.socket.client_sends(START, *audio(tone(1), silence(1)), STOP)
            await stage.connection.run()
            assert stage.kinds()[0] == "Ready"
            assert stage.kinds()[-2:] == ["Final", "Done"]
            assert stage.socket.close == (1000, "done")
            assert [m.seq for m in stage.messages()] == list(range(1, len(stage.messages()) + 1))
            assert stage.detector.num_open == 0

    asyncio.run(scenario())


def test_the_end_of_a_session_is_one_line_with_its_figures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> Totals:
        async with staged() as stage:
            stage.socket.client_sends(START, *audio(tone(1), silence(1)), STOP)
            await stage.connection.run()
            return stage.totals

    with caplog.at_level(logging.INFO):
        totals = asyncio.run(scenario())
    (line,) = (record for record in caplog.records if record.message == "session ended")
    figures = getattr(line, "fields", {})
    assert figures == figures | {
        "session": "session",
        "subprotocol": "asr.json.v1",
        "language": "en",
        "audio_s": 1.98,  # what filled VAD frames
        "utterances": 1,
        "segments": 1,
        "received_bytes": 64_000 + len(START) + len(STOP),
        "warnings": 0,
        "close_code": 1000,
        "close_reason": "done",
    }
    assert 1 < figures["speech_s"] < 1.98
    assert figures["partials"] >= 1
    assert figures["final_latency_max_ms"] >= figures["final_latency_p50_ms"] >= 0
    assert totals.final_latency.count == totals.messages["final"] == totals.messages["done"] == 1
    assert figures["sent_bytes"] == totals.sent_bytes > 0
    assert totals.received_bytes == figures["received_bytes"]
    assert "token" not in str(figures)


def test_the_line_of_a_client_that_left_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.socket.client_sends(START)
            stage.socket.client_leaves()
            await stage.connection.run()

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    (line,) = (record for record in caplog.records if record.message == "session ended")
    figures = getattr(line, "fields", {})
    assert (figures["close_code"], figures["close_reason"]) == (1006, "the client left")


def test_a_connection_says_how_far_its_session_is_and_what_waits_to_be_read() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.engine.hold()
            running = asyncio.create_task(stage.connection.run())
            assert (stage.connection.state, stage.connection.num_waiting) == ("new", 0)
            stage.socket.client_sends(START)
            await stage.socket.wait_for_frames(1)
            assert stage.connection.state == "open"
            stage.socket.stop_reading()
            stage.socket.client_sends(*audio(tone(1)), STOP)
            await until(lambda: stage.connection.state == "ending")
            stage.engine.let_go()
            await until(lambda: stage.session.unprocessed == 0)
            await until(lambda: stage.connection.num_waiting > 1)
            stage.socket.go_on_reading()
            await running
            assert stage.connection.num_waiting == 0

    asyncio.run(scenario())


def test_what_goes_wrong_is_counted_by_its_code() -> None:
    async def scenario() -> Totals:
        async with staged() as stage:
            stage.socket.client_sends("{")
            await stage.connection.run()
            return stage.totals

    totals = asyncio.run(scenario())
    assert {code for code, count in totals.errors.items() if count} == {"bad_message"}
    assert totals.received_bytes == 1


def test_what_is_to_be_told_is_sent_at_once_and_not_with_the_next_frame() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            running = asyncio.create_task(stage.connection.run())
            stage.socket.client_sends(START)
            for number in range(1, 4):
                await stage.socket.wait_for_frames(number)
                stage.socket.client_sends(str(CODEC.encode(protocol.Flush())))
            stage.socket.client_sends(STOP)
            await running
            assert stage.kinds() == ["Ready", "Flushed", "Flushed", "Flushed", "Done"]

    asyncio.run(scenario())


def test_a_slow_reader_gets_every_final_and_only_the_newest_partial() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.socket.client_sends(START)
            running = asyncio.create_task(stage.connection.run())
            await stage.socket.wait_for_frames(1)
            stage.socket.stop_reading()
            stage.socket.client_sends(*audio(tone(1), silence(1), tone(1), silence(1)), STOP)
            await until(lambda: stage.session.is_ending)
            await until(lambda: all(u.finished for u in stage.engine.utterances.values()))
            await until(lambda: stage.session.unprocessed == 0)
            stage.socket.go_on_reading()
            await running
            finals = [m for m in stage.messages() if isinstance(m, protocol.Final)]
            assert [m.segment for m in finals] == [0, 1]
            assert stage.kinds().count("Partial") <= 1  # one was on its way when reading stopped
            assert stage.kinds()[-1] == "Done"

    asyncio.run(scenario())


def test_reading_stops_at_the_high_water_mark_and_nothing_is_dropped() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.detector.hold()
            second = s16le(tone(1))
            stage.socket.client_sends(START, *[second] * 45, STOP)
            running = asyncio.create_task(stage.connection.run())
            await until(lambda: stage.session.unprocessed > HIGH_WATER_SAMPLES)
            for _ in range(20):  # as many turns as it would take to read on
                await asyncio.sleep(0)
            assert stage.session.unprocessed == HIGH_WATER_SAMPLES + SAMPLE_RATE
            assert stage.socket.num_unread == 15
            stage.detector.let_go()
            await running
            assert stage.messages()[-1] == protocol.Done(
                seq=len(stage.messages()), audio_s=45, segments=1
            )
            assert len(stage.engine.utterances[UtteranceId(1)].samples) == 45 * SAMPLE_RATE

    asyncio.run(scenario())


def test_a_client_that_falls_silent_is_finalised_and_closed() -> None:
    async def scenario() -> None:
        async with staged(idle_timeout_s=0.1) as stage:
            stage.socket.client_sends(START, *audio(tone(1)))
            await stage.connection.run()
            assert stage.kinds()[-2:] == ["Final", "ErrorMessage"]
            assert stage.error().code == "idle_timeout"
            assert stage.socket.close == (1008, "idle_timeout")

    asyncio.run(scenario())


def test_a_client_that_never_starts_is_closed() -> None:
    async def scenario() -> None:
        async with staged(idle_timeout_s=0.02) as stage:
            await stage.connection.run()
            assert stage.kinds() == ["ErrorMessage"]
            assert stage.socket.close == (1008, "idle_timeout")

    asyncio.run(scenario())


def test_a_client_that_is_not_read_from_is_not_idle() -> None:
    async def scenario() -> None:
        async with staged(idle_timeout_s=0.2) as stage:
            stage.detector.hold()
            stage.socket.client_sends(START, *[s16le(tone(1))] * 40, STOP)
            running = asyncio.create_task(stage.connection.run())
            await until(lambda: stage.session.unprocessed > HIGH_WATER_SAMPLES)
            await asyncio.sleep(0.5)  # well over the limit
            assert not stage.session.is_ending
            stage.detector.let_go()
            await running
            assert stage.kinds()[-1] == "Done"

    asyncio.run(scenario())


def test_a_client_that_leaves_has_its_utterances_cancelled() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.socket.client_sends(START, *audio(tone(1)))
            running = asyncio.create_task(stage.connection.run())
            await until(lambda: len(stage.engine.utterances) == 1)
            stage.socket.client_leaves()
            await running
            await until(lambda: stage.engine.utterances[UtteranceId(1)].cancelled)
            assert stage.detector.num_open == 0
            assert stage.socket.close is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("frames", "code", "close_code", "sentence"),
    [
        (["{"], "bad_message", 1007, "not JSON"),
        (['{"type": "begin"}'], "bad_message", 1008, "got 'begin'"),
        ([b"\0\0"], "not_started", 1008, "got audio"),
        ([START, START], "already_started", 1008, "start again"),
        (["x" * 100_001], "message_too_large", 1009, "100001 bytes, takes at most 100000"),
        (["é" * 50_001], "message_too_large", 1009, "100002 bytes, takes at most 100000"),
        ([START, bytes(32_001)], "message_too_large", 1009, "got 32001 bytes"),
        ([b"\0" * 100_001], "message_too_large", 1009, "100001 bytes"),
        (['{"type": "start", "task": "sing"}'], "unsupported", 1008, "got 'sing'"),
    ],
)
def test_what_a_client_does_wrong_is_said_and_closes(
    frames: list[str | bytes], code: str, close_code: int, sentence: str
) -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.socket.client_sends(*frames)
            await stage.connection.run()
            assert stage.error().code == code
            assert sentence in stage.error().message
            assert stage.socket.close == (close_code, code)

    asyncio.run(scenario())


def test_an_utterance_that_fails_ends_its_session() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.engine.failing = "out of memory"
            stage.socket.client_sends(START, *audio(tone(1), silence(1)))
            await stage.connection.run()
            assert stage.error().code == "engine_failure"
            assert "out of memory" in stage.error().message
            assert stage.socket.close == (1011, "engine_failure")

    asyncio.run(scenario())


def test_an_engine_that_has_stopped_ends_the_session() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.engine.break_down(RuntimeError("lost the device"))
            await until(lambda: stage.engine.stopped)
            stage.socket.client_sends(START)
            running = asyncio.create_task(stage.connection.run())
            await stage.socket.wait_for_frames(1)
            stage.socket.client_sends(*audio(tone(1)))
            await running
            assert stage.error().code == "engine_failure"
            assert stage.socket.close == (1011, "engine_failure")

    asyncio.run(scenario())


def test_a_failure_of_the_server_itself_is_logged_and_ends_this_session_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.socket.client_sends(START)
            running = asyncio.create_task(stage.connection.run())
            await stage.socket.wait_for_frames(1)
            # The engine knows no such utterance's event of this kind.
            stage.connection._deliver_event("not an event")  # type: ignore[arg-type]
            await running
            assert stage.error().code == "engine_failure"

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert "session session failed" in caplog.text


def test_a_drain_finalises_and_closes() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.socket.client_sends(START, *audio(tone(1)))
            running = asyncio.create_task(stage.connection.run())
            await until(lambda: len(stage.engine.utterances) == 1)
            stage.connection.drain()
            await running
            assert stage.kinds()[-2:] == ["Final", "ErrorMessage"]
            assert stage.socket.close == (1012, "shutting_down")

    asyncio.run(scenario())


def test_a_connection_given_up_closes_though_the_engine_is_silent() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stage.engine.hold()
            stage.socket.client_sends(START, *audio(tone(1)), STOP)
            running = asyncio.create_task(stage.connection.run())
            await until(lambda: len(stage.engine.utterances) == 1)
            stage.connection.fail(ShuttingDownError("now"))
            await running
            assert stage.socket.close == (1012, "shutting_down")

    asyncio.run(scenario())
