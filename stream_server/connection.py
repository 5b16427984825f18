"""Shell: one websocket and its session. Performs the session's effects in order.

Two tasks: one reads frames and hands them to the session, one writes what the outbox holds.
The detector and the engine answer on threads of their own; their answers are posted to the event
loop, so the session is only ever touched by one thread. Everything that can go wrong here ends
this session alone, with a reason.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE
from engine.errors import EngineStoppedError
from engine.events import (
    AppendAudio,
    CancelUtterance,
    Command,
    EngineEvent,
    FinishUtterance,
    ModelInfo,
    OpenUtterance,
    PauseUtterance,
    UtteranceId,
)
from engine.metrics import EngineMetrics
from stream_server.effects import Close, Effect, Score, Send, Submit
from stream_server.endpointer import SpeechDetector
from stream_server.errors import (
    BadMessageError,
    EngineFailureError,
    MessageTooLargeError,
    SessionError,
)
from stream_server.loop_mailbox import LoopMailbox
from stream_server.outbox import Outbox
from stream_server.protocol import Codec, ProtocolError
from stream_server.session import Session
from stream_server.session_meter import SessionMeter
from stream_server.totals import SessionState

logger = logging.getLogger(__name__)

# A client that sends a file at once is slowed to what can be held, and loses nothing. Reading
# goes on at two thirds, so that it does not stop and start with every frame.
HIGH_WATER_SAMPLES: Final = 30 * SAMPLE_RATE
LOW_WATER_SAMPLES: Final = 20 * SAMPLE_RATE

AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Write = Callable[[AsgiMessage], Awaitable[None]]


class Engine(Protocol):
    """What is needed of `engine.worker.Worker`; every method may be called from any thread."""

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""

    @property
    def metrics(self) -> EngineMetrics:
        """What it counts; to be read only."""

    def new_utterance_id(self) -> UtteranceId:
        """An id never given before."""

    def open(self, command: OpenUtterance, listener: Callable[[EngineEvent], None]) -> None:
        """`listener` is called on the engine's thread."""

    def submit(
        self, command: AppendAudio | PauseUtterance | FinishUtterance | CancelUtterance
    ) -> None:
        """Go on with an open utterance."""

    def on_failure(self, callback: Callable[[Exception], None]) -> None:
        """`callback` hears, on the engine's thread, what ended it."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one client may ask of its connection."""

    max_message_bytes: int
    idle_timeout_s: float


class Connection:
    """One accepted websocket. Constructed and run on the event loop's thread.

    `receive` and `write` are ASGI's, for frames of `codec`.
    """

    def __init__(
        self,
        session: Session,
        codec: Codec,
        engine: Engine,
        detector: SpeechDetector,
        limits: ConnectionLimits,
        meter: SessionMeter,
        mailbox: LoopMailbox,
        receive: Receive,
        write: Write,
    ) -> None:
        self._session = session
        self._codec = codec
        self._engine = engine
        self._frames = detector.open()
        self._limits = limits
        self._meter = meter
        self._mailbox = mailbox
        self._receive = receive
        self._write = write
        self._outbox = Outbox()
        self._close: Close | None = None
        self._gone = False
        self._wake = asyncio.Event()  # the writer has something to do
        self._room = asyncio.Event()  # the reader may read
        self._room.set()
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()

    async def run(self) -> None:
        """Serve the client until either side closes."""
        self._idle_timer = self._loop.call_later(self._limits.idle_timeout_s, self._check_idle)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write_messages())
                await self._read_frames()
        finally:
            self._idle_timer.cancel()
            self._perform(self._session.drop())
            self._frames.close()
            logger.info("session ended", extra={"fields": self._figures()})

    def drain(self) -> None:
        """Finalise what was heard and close; the server is going away."""
        self._decide(self._session.drain)

    def fail(self, error: SessionError) -> None:
        """Close at once, for a reason outside of this session."""
        self._perform(self._session.abort(error))

    @property
    def state(self) -> SessionState:
        """How far its session is."""
        if self._session.is_ending:
            return "ending"
        return "open" if self._meter.has_started else "new"

    @property
    def num_waiting(self) -> int:
        """Messages that the client has not been sent yet."""
        return len(self._outbox)

    def _figures(self) -> dict[str, Any]:
        """What the log keeps of the session: never its token, its text or who the client is."""
        identity = {"session": self._session.session_id, "subprotocol": self._codec.subprotocol}
        return identity | self._meter.figures()

    async def _read_frames(self) -> None:
        while True:
            message = await self._receive()
            self._heard_at = self._loop.time()
            if message["type"] == "websocket.disconnect":
                self._meter.leave(message.get("code", 1005), message.get("reason") or "")
                break
            frame = message.get("bytes")
            self._decide(self._receive_frame, message["text"] if frame is None else bytes(frame))
            await self._room.wait()
            self._heard_at = self._loop.time()
        self._gone = True
        self._wake.set()

    async def _write_messages(self) -> None:
        # A client that is gone is the reader's to notice.
        with contextlib.suppress(OSError):
            while not self._gone:
                message = self._outbox.take()
                if message is not None:
                    frame = self._codec.encode(message)
                    self._meter.send(message, _size_of(frame))
                    await self._write(_to_asgi(frame))
                elif self._close is not None:
                    await self._write(
                        {
                            "type": "websocket.close",
                            "code": self._close.code,
                            "reason": self._close.reason,
                        }
                    )
                    return
                else:
                    self._wake.clear()
                    await self._wake.wait()

    def _receive_frame(self, frame: str | bytes) -> list[Effect]:
        size = _size_of(frame)
        self._meter.receive(size)
        limit = self._limits.max_message_bytes
        if size > limit:
            raise MessageTooLargeError(f"got a frame of {size} bytes, takes at most {limit}")
        try:
            message = self._codec.decode_client(frame)
        except ProtocolError as exc:
            raise BadMessageError(str(exc), exc.close_code) from exc
        return self._session.receive_message(message)

    def _decide(self, decide: Callable[..., list[Effect]], *args: Any) -> None:
        """Have the session decide, and perform it. The boundary where errors become messages."""
        try:
            self._perform(decide(*args))
        except SessionError as error:
            logger.info("session %s: %s: %s", self._session.session_id, error.code, error)
            self.fail(error)
        except EngineStoppedError:
            self.fail(EngineFailureError("the engine has stopped"))
        except Exception:
            logger.exception("session %s failed", self._session.session_id)
            self.fail(EngineFailureError("the server failed; it is not your doing"))

    def _perform(self, effects: list[Effect]) -> None:
        unprocessed = self._session.unprocessed
        if effects:
            self._meter.perform(effects, unprocessed, self._loop.time())
        for effect in effects:
            match effect:
                case Send(message=message):
                    self._outbox.put(message)
                case Score(frames=frames):
                    self._frames.score(frames, self._deliver_speech)
                case Submit(command=command):
                    self._submit(command)
                case Close():
                    self._close = effect
                case _:
                    assert_never(effect)
        # Most audio has nothing to be told; waking the writer would cost as much as taking it.
        if self._close is not None or len(self._outbox):
            self._wake.set()
        if unprocessed > HIGH_WATER_SAMPLES:
            self._room.clear()
        elif unprocessed <= LOW_WATER_SAMPLES:
            self._room.set()

    def _submit(self, command: Command) -> None:
        match command:
            case OpenUtterance():
                self._engine.open(command, self._deliver_event)
            case CancelUtterance():
                # An engine that has stopped has forgotten it already.
                with contextlib.suppress(EngineStoppedError):
                    self._engine.submit(command)
            case _:
                self._engine.submit(command)

    def _deliver_speech(self, probabilities: NDArray[np.float32]) -> None:
        """Called on the detector's thread."""
        speech = probabilities.tolist()
        self._mailbox.post(self._decide, self._session.receive_speech, speech)

    def _deliver_event(self, event: EngineEvent) -> None:
        """Called on the engine's thread."""
        self._mailbox.post(self._decide, self._session.receive_event, event)

    def _check_idle(self) -> None:
        if self._session.is_ending:
            return
        now = self._loop.time()
        # A client that is not read from cannot be heard.
        heard_at = self._heard_at if self._room.is_set() else now
        remaining = heard_at + self._limits.idle_timeout_s - now
        if remaining > 0:
            self._idle_timer = self._loop.call_later(remaining, self._check_idle)
        else:
            self._decide(self._session.expire, self._limits.idle_timeout_s)


def _size_of(frame: str | bytes) -> int:
    return len(frame) if isinstance(frame, bytes) else len(frame.encode())


def _to_asgi(frame: str | bytes) -> AsgiMessage:
    kind = "text" if isinstance(frame, str) else "bytes"
    return {"type": "websocket.send", kind: frame}
