"""What an audio message costs from the socket to the engine's mailbox, the detector included.

CPU time of real connections, sessions and detector, with an engine that computes nothing. Two
runs in real time, measured by the clocks of the process and of the event loop's thread: one whose
`receive` is scripted, without a socket, and one through websockets of this machine, whose clients
are another process. Parts that are plain calls are timed by themselves; what they leave of the
first run is the connection's and the event loop's.
"""

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE
from stream_server.config import ServerConfig
from stream_server.connection import AsgiMessage, Connection, ConnectionLimits
from stream_server.endpointer import VAD_FRAME_SAMPLES
from stream_server.loop_mailbox import LoopMailbox
from stream_server.protocol import JsonCodec, Start
from stream_server.server import Server, bind, build_app
from stream_server.server_bench_clients import send_audio
from stream_server.server_bench_parts import NullEngine, time_codecs, time_pcm, time_session
from stream_server.session import Session
from stream_server.session_meter import SessionMeter
from stream_server.silero_net import SileroNet
from stream_server.totals import Totals
from stream_server.vad import SileroVad

WARM_UP_S: Final = 1.0  # everybody connected, first calls of everything made
_LIMITS: Final = ConnectionLimits(max_message_bytes=1 << 20, idle_timeout_s=60)
_BYTES_PER_SAMPLE: Final = 2


class BenchError(Exception):
    """It could not be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Shape:
    """So many sessions that each send a chunk every `chunk_ms`, measured for `seconds`."""

    sessions: int = 200  # DESIGN.md's own
    chunk_ms: int = 20  # what telephony and many browsers send; larger chunks cost less
    seconds: float = 10.0

    @property
    def chunk_samples(self) -> int:
        """Samples in a message."""
        return SAMPLE_RATE * self.chunk_ms // 1000


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds for each message: of the event loop's thread, and of all others."""

    loop_us: float
    others_us: float


def measure(
    samples: NDArray[np.float32], shape: Shape
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows for the report, and what they must be read with. `samples` is what everybody says.

    Raises BenchError.
    """
    chunks = _chunks(samples, shape)
    if not chunks:
        raise BenchError(f"expected a recording of at least {shape.chunk_ms} ms, got less")
    net = SileroNet()
    codecs, pcm_us = time_codecs(chunks), time_pcm(chunks)
    audio_us, scores_us = time_session(chunks, net.score(samples))
    totals = Totals()

    def converse(client: ScriptedClient, mailbox: LoopMailbox) -> Coroutine[Any, Any, None]:
        return _connection(client, mailbox, detector, totals).run()

    with _running(SileroVad(net)) as detector:
        pacing = run_in_process(chunks, shape, lambda client, _: client.discard())
        within = run_in_process(chunks, shape, converse)
        calls, frames = detector.metrics.count, detector.metrics.rows
    with _running(SileroVad(net)) as detector:
        through_us = run_through_websockets(chunks, shape, detector)

    loop_us, detector_us = within.loop_us - pacing.loop_us, within.others_us - pacing.others_us
    within_us = loop_us + detector_us
    plain_us = codecs[JsonCodec.subprotocol] + audio_us + scores_us
    table = [
        *((f"codec {name}", us, "timed calls") for name, us in codecs.items()),
        ("PCM", pcm_us, "timed calls"),
        ("session, audio (with PCM)", audio_us, "timed calls"),
        ("session, scores", scores_us, "timed calls"),
        ("connection", loop_us - plain_us, "loop's thread less the calls above, of JSON"),
        ("detector", detector_us, "its thread"),
        ("receive to mailbox", within_us, "process less its pacing"),
        ("websocket", through_us - within_us, "the next row less the one before"),
        ("socket to mailbox", through_us, "process"),
    ]
    facts = {
        "sessions": shape.sessions,
        "chunk_ms": shape.chunk_ms,
        "seconds": shape.seconds,
        "speech_share": totals.speech / max(1, totals.audio),
        "vad_frames_per_call": frames / max(1, calls),
        "detector_us_per_vad_frame": detector_us * VAD_FRAME_SAMPLES / shape.chunk_samples,
    }
    return [
        {"part": name, "us per message": us, "measured by": how} for name, us, how in table
    ], facts


class ScriptedClient:
    """A client without a socket: `receive` gives its chunks when they are due."""

    def __init__(self, chunks: Sequence[bytes], first: int, due: float, interval_s: float) -> None:
        self._chunks = chunks
        self._next = first
        self._due = due
        self._interval_s = interval_s
        self._has_started = False
        self.num_sent = 0

    async def receive(self) -> AsgiMessage:
        """As ASGI has it."""
        if not self._has_started:
            self._has_started = True
            return {"type": "websocket.receive", "text": JsonCodec().encode(Start())}
        await asyncio.sleep(self._due - asyncio.get_running_loop().time())
        self._due += self._interval_s
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


def run_in_process(
    chunks: Sequence[bytes],
    shape: Shape,
    serve: Callable[[ScriptedClient, LoopMailbox], Coroutine[Any, Any, None]],
) -> Cost:
    """Serve scripted clients, as many as `shape` says, each from a place of its own."""

    async def run() -> Cost:
        loop = asyncio.get_running_loop()
        mailbox, interval_s = LoopMailbox(loop), shape.chunk_ms / 1000
        clients = [
            ScriptedClient(
                chunks,
                number * len(chunks) // shape.sessions,
                loop.time() + interval_s * number / shape.sessions,
                interval_s,
            )
            for number in range(shape.sessions)
        ]
        tasks = [asyncio.create_task(serve(client, mailbox)) for client in clients]
        await asyncio.sleep(WARM_UP_S)
        before = (sum(it.num_sent for it in clients), time.thread_time(), time.process_time())
        await asyncio.sleep(shape.seconds)
        after = (sum(it.num_sent for it in clients), time.thread_time(), time.process_time())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        sent, loop_s, process_s = (b - a for a, b in zip(before, after, strict=True))
        return Cost(1e6 * loop_s / sent, 1e6 * (process_s - loop_s) / sent)

    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        return runner.run(run())


def run_through_websockets(chunks: Sequence[bytes], shape: Shape, detector: SileroVad) -> float:
    """CPU microseconds of this process for a message of a client in another one.

    Raises BenchError.
    """
    config = ServerConfig(port=0, max_sessions=shape.sessions, drain_timeout_s=0, metrics=False)
    with closing(bind(config)) as listener:
        listener.listen()  # so that clients that come early wait
        app = build_app(config, NullEngine(), detector)
        server = Server(config, app, "listening")
        totals: Totals = app.state.service.totals
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/v1/stream"
        serving = threading.Thread(target=server.run, args=([listener],), name="server")
        clients = multiprocessing.get_context("spawn").Process(
            target=send_audio, args=(url, chunks, shape.sessions, shape.chunk_ms / 1000)
        )
        serving.start()
        clients.start()
        try:
            while totals.messages["ready"] < shape.sessions:
                if not clients.is_alive():
                    raise BenchError("the clients ended before all of them had connected")
                time.sleep(0.05)
            time.sleep(WARM_UP_S)
            heard, process_s = totals.audio, time.process_time()
            time.sleep(shape.seconds)
            messages = (totals.audio - heard) / shape.chunk_samples
            return 1e6 * (time.process_time() - process_s) / messages
        finally:
            clients.terminate()
            clients.join()
            server.should_exit = True
            serving.join()


def _chunks(samples: NDArray[np.float32], shape: Shape) -> list[bytes]:
    """What messages hold, s16le: whole chunks, so that they can be repeated."""
    audio = np.asarray(np.round(samples * 32767), "<i2").tobytes()
    size = shape.chunk_samples * _BYTES_PER_SAMPLE
    return [audio[at : at + size] for at in range(0, len(audio) - size + 1, size)]


def _connection(
    client: ScriptedClient, mailbox: LoopMailbox, detector: SileroVad, totals: Totals
) -> Connection:
    engine = NullEngine()
    session = Session("s", "t", engine.info, engine.new_utterance_id)
    return Connection(
        session,
        JsonCodec(),
        engine,
        detector,
        _LIMITS,
        SessionMeter(totals),
        mailbox,
        client.receive,
        client.write,
    )


@contextmanager
def _running(detector: SileroVad) -> Iterator[SileroVad]:
    detector.start()
    try:
        yield detector
    finally:
        detector.stop()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Of the kind that a server runs on."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = new_event_loop()
    return loop
