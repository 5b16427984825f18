"""What an audio message costs from the socket to the engine's mailbox, the detector included.

Measured as CPU time, with real connections, sessions and detector, and an engine that only takes
what it is given. Two runs in real time, by the process's and the event loop's own clocks: one
whose `receive` is scripted, without a socket, and one through a websocket of this machine, its
clients in another process. The parts that are plain calls are timed by themselves over and over;
the rest of a run is what they leave of it.
"""

import asyncio
import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import uvicorn
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE
from engine.events import (
    AppendAudio,
    CancelUtterance,
    EngineEvent,
    FinishUtterance,
    ModelInfo,
    OpenUtterance,
    PauseUtterance,
    UtteranceFinished,
    UtteranceId,
)
from engine.metrics import EngineMetrics
from stream_server.config import ServerConfig
from stream_server.connection import AsgiMessage, Connection, ConnectionLimits
from stream_server.effects import Score
from stream_server.endpointer import VAD_FRAME_SAMPLES
from stream_server.pcm import PcmDecoder
from stream_server.protocol import Audio, JsonCodec, MsgpackCodec, Start
from stream_server.server import Server, bind, build_app
from stream_server.server_bench_clients import send_audio
from stream_server.session import Session
from stream_server.session_meter import SessionMeter
from stream_server.silero_net import SileroNet
from stream_server.totals import Totals
from stream_server.vad import SileroVad

WARM_UP_S: Final = 1.0  # everybody connected, first calls of everything made
TIMED_CALLS: Final = 20_000  # of each part: a tenth of a second, steady to a few per cent
LIMITS: Final = ConnectionLimits(max_message_bytes=1 << 20, idle_timeout_s=60)
INFO: Final = ModelInfo("null", ("en",), ("transcribe",))
BYTES_PER_SAMPLE: Final = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What is measured: so many sessions that send a chunk every `chunk_ms`, for `seconds`."""

    sessions: int = 200
    chunk_ms: int = 20  # what browsers and telephony send; smaller chunks cost more
    seconds: float = 10.0

    @property
    def chunk_samples(self) -> int:
        """Samples in a message."""
        return SAMPLE_RATE * self.chunk_ms // 1000


@dataclass(frozen=True, slots=True)
class _Cost:
    """CPU time for each message: of the event loop's thread, and of the whole process."""

    loop_us: float
    process_us: float


class NullEngine:
    """Takes commands and computes nothing; an utterance that ends is finished at once."""

    def __init__(self) -> None:
        self.info = INFO
        self.metrics = EngineMetrics()
        self._ids = itertools.count(1)
        self._listeners: dict[UtteranceId, Callable[[EngineEvent], None]] = {}

    def new_utterance_id(self) -> UtteranceId:
        """An id never given before."""
        return UtteranceId(next(self._ids))

    def open(self, command: OpenUtterance, listener: Callable[[EngineEvent], None]) -> None:
        """Remember whom to tell of the end."""
        self._listeners[command.utterance_id] = listener

    def submit(
        self, command: AppendAudio | PauseUtterance | FinishUtterance | CancelUtterance
    ) -> None:
        """Take it."""
        if isinstance(command, FinishUtterance):
            self._listeners.pop(command.utterance_id)(UtteranceFinished(command.utterance_id))

    def on_failure(self, callback: Callable[[Exception], None]) -> None:
        """Nothing here can fail."""


def measure(samples: NDArray[np.float32], shape: Shape) -> tuple[list[dict[str, Any]], Any]:
    """Rows for the report, and what they must be read with. `samples` is what everybody says."""
    audio = np.asarray(np.round(samples * 32767), "<i2").tobytes()
    chunk_bytes = shape.chunk_samples * BYTES_PER_SAMPLE
    whole = len(audio) - len(audio) % chunk_bytes
    chunks = [audio[at : at + chunk_bytes] for at in range(0, whole, chunk_bytes)]
    net = SileroNet()
    parts = time_parts(chunks, net.score(samples))
    totals = Totals()
    with _detector(net) as detector:
        pacing = _run_in_process(chunks, shape, lambda client: client.discard())
        inside = _run_in_process(
            chunks, shape, lambda client: _connection(client, detector, totals).run()
        )
        calls, frames = detector.metrics.count, detector.metrics.rows
    with _detector(net) as detector:
        outside = _run_through_websockets(audio, chunk_bytes, shape, detector)

    session_us = parts["session, audio"] + parts["session, scores"]
    loop_us = inside.loop_us - pacing.loop_us
    detector_us = (inside.process_us - inside.loop_us) - (pacing.process_us - pacing.loop_us)
    rows = [{"part": name, "us": us, "by": "calls"} for name, us in parts.items()]
    plain_us = parts[_CODECS[0][0]] + session_us
    rows += [
        {"part": "connection", "us": loop_us - plain_us, "by": "event loop's thread - calls"},
        {"part": "detector", "us": detector_us, "by": "detector's thread"},
        {"part": "in process", "us": loop_us + detector_us, "by": "process - pacing"},
        {
            "part": "websocket",
            "us": outside.process_us - loop_us - detector_us,
            "by": "through a websocket - in process",
        },
        {"part": "through a websocket", "us": outside.process_us, "by": "process"},
    ]
    facts = {
        "sessions": shape.sessions,
        "chunk_ms": shape.chunk_ms,
        "seconds": shape.seconds,
        "speech_share": totals.speech / totals.audio,
        "vad_frames_per_call": frames / calls,
        "detector_us_per_vad_frame": detector_us * VAD_FRAME_SAMPLES / shape.chunk_samples,
    }
    return rows, facts


_CODECS: Final = (("codec, JSON", JsonCodec()), ("codec, MessagePack", MsgpackCodec()))


def time_parts(chunks: Sequence[bytes], scores: NDArray[np.float32]) -> dict[str, float]:
    """Microseconds a message for each part that is a plain call. The session's hold its PCM."""
    told: dict[str, float] = {}
    for name, codec in _CODECS:
        frames = [codec.encode(Audio(pcm=chunk)) for chunk in chunks]
        told[name] = _timed(codec.decode_client, frames)
    told["session, audio"], told["session, scores"] = _time_session(chunks, scores.tolist())
    told["of it PCM"] = _timed(PcmDecoder(SAMPLE_RATE, "pcm_s16le", 1).decode, chunks)
    return told


def _timed(call: Callable[[Any], object], values: Sequence[Any]) -> float:
    given = list(itertools.islice(itertools.cycle(values), TIMED_CALLS))
    began = time.perf_counter_ns()
    for value in given:
        call(value)
    return (time.perf_counter_ns() - began) / 1000 / TIMED_CALLS


def _time_session(chunks: Sequence[bytes], scores: Sequence[float]) -> tuple[float, float]:
    """Of a session whose audio is scored as it comes: taking audio, and taking scores."""
    session = Session("s", "t", INFO, NullEngine().new_utterance_id)
    session.receive_message(Start())
    audio_ns, scores_ns, num_scored = 0, 0, 0
    messages = [Audio(pcm=chunk) for chunk in chunks]
    for message in itertools.islice(itertools.cycle(messages), TIMED_CALLS):
        began = time.perf_counter_ns()
        effects = session.receive_message(message)
        audio_ns += time.perf_counter_ns() - began
        for effect in effects:
            if isinstance(effect, Score):
                now = [scores[(num_scored + i) % len(scores)] for i in range(len(effect.frames))]
                num_scored += len(now)
                began = time.perf_counter_ns()
                session.receive_speech(now)
                scores_ns += time.perf_counter_ns() - began
    return audio_ns / 1000 / TIMED_CALLS, scores_ns / 1000 / TIMED_CALLS


class _ScriptedClient:
    """A client without a socket: `receive` gives its chunks when they are due."""

    def __init__(self, chunks: Sequence[bytes], first: int, due: float, interval_s: float) -> None:
        self._chunks = chunks
        self._next = first
        self._due = due
        self._interval_s = interval_s
        self._started = False
        self.num_sent = 0

    async def receive(self) -> AsgiMessage:
        """As ASGI has it."""
        if not self._started:
            self._started = True
            return {"type": "websocket.receive", "text": JsonCodec().encode(Start())}
        self._due += self._interval_s
        await asyncio.sleep(self._due - asyncio.get_running_loop().time())
        chunk = self._chunks[self._next % len(self._chunks)]
        self._next += 1
        self.num_sent += 1
        return {"type": "websocket.receive", "bytes": chunk}

    async def write(self, message: AsgiMessage) -> None:
        """Nobody reads."""

    async def discard(self) -> None:
        """Do nothing with the chunks: what the pacing alone costs."""
        while True:
            await self.receive()


def _connection(client: _ScriptedClient, detector: SileroVad, totals: Totals, mailbox: LoopMailbox) -> Connection:
    engine = NullEngine()
    session = Session("s", "t", INFO, engine.new_utterance_id)
    meter = SessionMeter(totals)
    return Connection(
        session, JsonCodec(), engine, detector, LIMITS, meter, mailbox, client.receive, client.write
    )


def _run_in_process(
    chunks: Sequence[bytes],
    shape: Shape,
    serve: Callable[[_ScriptedClient], Coroutine[Any, Any, None]],
) -> _Cost:
    async def run() -> _Cost:
        now, interval_s = asyncio.get_running_loop().time(), shape.chunk_ms / 1000
        clients = [
            _ScriptedClient(
                chunks,
                number * len(chunks) // shape.sessions,
                now + interval_s * number / shape.sessions,
                interval_s,
            )
            for number in range(shape.sessions)
        ]
        tasks = [asyncio.create_task(serve(client)) for client in clients]
        await asyncio.sleep(WARM_UP_S)
        sent = sum(client.num_sent for client in clients)
        loop_s, process_s = time.thread_time(), time.process_time()
        await asyncio.sleep(shape.seconds)
        loop_s, process_s = time.thread_time() - loop_s, time.process_time() - process_s
        sent = sum(client.num_sent for client in clients) - sent
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return _Cost(1e6 * loop_s / sent, 1e6 * process_s / sent)

    # The event loop that a server would choose.
    with asyncio.Runner(loop_factory=uvicorn.Config(run).get_loop_factory()) as runner:
        return runner.run(run())


def _run_through_websockets(
    audio: bytes, chunk_bytes: int, shape: Shape, detector: SileroVad
) -> _Cost:
    config = ServerConfig(port=0, max_sessions=shape.sessions, drain_timeout_s=0, metrics=False)
    with closing(bind(config)) as listener:
        app = build_app(config, NullEngine(), detector)
        server = Server(config, app, "listening")
        totals: Totals = app.state.service.totals
        serving = threading.Thread(target=server.run, args=([listener],), name="server")
        clients = multiprocessing.get_context("spawn").Process(
            target=send_audio,
            args=(
                f"ws://127.0.0.1:{listener.getsockname()[1]}/v1/stream",
                audio,
                shape.sessions,
                chunk_bytes,
                shape.chunk_ms / 1000,
            ),
            daemon=True,
        )
        listener.listen()  # before anybody connects
        serving.start()
        clients.start()
        try:
            while totals.messages["ready"] < shape.sessions:
                if not clients.is_alive():
                    raise RuntimeError("the benchmark's clients ended before all had connected")
                time.sleep(0.05)
            time.sleep(WARM_UP_S)
            heard, process_s = totals.audio, time.process_time()
            time.sleep(shape.seconds)
            received = totals.audio - heard
            process_s = time.process_time() - process_s
        finally:
            clients.terminate()
            clients.join()
            server.should_exit = True
            serving.join()
    cost_us = 1e6 * process_s * shape.chunk_samples / received
    return _Cost(cost_us, cost_us)


@contextmanager
def _detector(net: SileroNet) -> Iterator[SileroVad]:
    detector = SileroVad(net)
    detector.start()
    try:
        yield detector
    finally:
        detector.stop()
