"""The sessions of one application: who is let in, what serves them, how all of them end.

Decides with `access` and `registry` whether a websocket is accepted, and answers what is not in
HTTP; leaves a session to its `connection`, the process and its signals to `server`.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from stream_server.access import AccessPolicy
from stream_server.config import ServerConfig
from stream_server.connection import Connection, ConnectionLimits, Engine
from stream_server.endpointer import SpeechDetector
from stream_server.errors import EngineFailureError, SessionError, ShuttingDownError
from stream_server.http_routes import Condition, unauthorized
from stream_server.loop_mailbox import LoopMailbox
from stream_server.metrics import Snapshot
from stream_server.protocol import CODECS, JSON_SUBPROTOCOL
from stream_server.registry import Admission, Registry, SpeechShare, measured_capacity
from stream_server.session import Session
from stream_server.session_meter import SessionMeter
from stream_server.totals import RefusalReason, SessionState, Totals

logger = logging.getLogger(__name__)

RETRY_AFTER_S: Final = 2  # places become free whenever somebody stops talking
CLOSE_GRACE_S: Final = 1  # for the last messages to leave after sessions were given up


@dataclass(frozen=True, slots=True)
class _Refused:
    """No place for a client: the answer it gets, and what is counted."""

    reason: RefusalReason
    response: Response


class StreamService:
    """Every session of one application. Touched only by the event loop's thread."""

    def __init__(
        self, config: ServerConfig, policy: AccessPolicy, engine: Engine, detector: SpeechDetector
    ) -> None:
        self.condition = Condition()
        self.totals = Totals()
        self._policy = policy
        self._engine = engine
        self._detector = detector
        self._limits = ConnectionLimits(config.max_message_bytes, config.idle_timeout_s)
        self._registry = Registry(config.max_sessions)
        self._speech_share = SpeechShare()
        self._connections: set[Connection] = set()
        self._to_loop: LoopMailbox | None = None
        self._nobody = asyncio.Event()
        self._nobody.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one websocket, from its handshake to its end."""
        await receive()  # websocket.connect
        offered: list[str] = scope["subprotocols"]
        admission = self._admit(Headers(scope=scope), offered)
        if isinstance(admission, _Refused):
            self.totals.refused[admission.reason] += 1
            await admission.response(scope, receive, send)
            return
        self.totals.admitted += 1
        subprotocol = next((offer for offer in offered if offer in CODECS), None)
        session = Session(
            admission.session_id, admission.token, self._engine.info, self._engine.new_utterance_id
        )
        try:
            await send({"type": "websocket.accept", "subprotocol": subprotocol})
            connection = Connection(
                session,
                CODECS[subprotocol or JSON_SUBPROTOCOL],
                self._engine,
                self._detector,
                self._limits,
                SessionMeter(self.totals),
                self._mailbox(),
                receive,
                send,
            )
            self._connections.add(connection)
            self._nobody.clear()
            try:
                await connection.run()
            finally:
                self._connections.remove(connection)
                if not self._connections:
                    self._nobody.set()
        finally:
            self._registry.release(admission)

    def refusal(self, headers: Headers) -> Response | None:
        """What an upgrade with these headers would now be refused with; None if it would not."""
        admission = self._admit(headers, offered=())
        if isinstance(admission, _Refused):
            return admission.response
        self._registry.release(admission)
        return None

    def _mailbox(self) -> LoopMailbox:
        """That of the loop which serves the application, known once it serves."""
        if self._to_loop is None:
            self._to_loop = LoopMailbox(asyncio.get_running_loop())
        return self._to_loop

    def snapshot(self) -> Snapshot:
        """How the sessions are now."""
        self._measure()
        states = Counter(connection.state for connection in self._connections)
        return Snapshot(
            {state: states[state] for state in get_args(SessionState)},
            self._registry.places,
            max((connection.num_waiting for connection in self._connections), default=0),
        )

    def _admit(self, headers: Headers, offered: Sequence[str]) -> Admission | _Refused:
        """A place, or why there is none for this client."""
        if not self._policy.admits_origin(headers.get("origin"), headers.get("host")):
            response = PlainTextResponse("pages of this origin are not admitted\n", 403)
            return _Refused("forbidden_origin", response)
        if not self._policy.admits_key(headers.get("authorization"), offered):
            return _Refused("unauthorized", unauthorized())
        self._measure()
        admission = self._registry.admit()
        if admission is not None:
            return admission
        if self._registry.is_closed:
            return _Refused("draining", _unavailable("this server is shutting down"))
        return _Refused("capacity", _unavailable("this server takes no more sessions now"))

    def _measure(self) -> None:
        """Let the registry know what the device can serve."""
        share = self._speech_share.update(self.totals.speech, self.totals.audio)
        engine = self._engine.metrics
        self._registry.capacity = measured_capacity(engine.s_per_speech_s, share, engine.slots)

    async def drain(self, timeout_s: float) -> None:
        """Admit nobody, finalise every session, and give up those that take too long."""
        self.condition.draining = True
        self._registry.close()
        for connection in list(self._connections):
            connection.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nobody.wait(), timeout_s)
        self.give_up(ShuttingDownError("the server is shutting down and could not wait longer"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nobody.wait(), CLOSE_GRACE_S)

    def give_up(self, error: SessionError) -> None:
        """Close every session at once."""
        for connection in list(self._connections):
            connection.fail(error)

    def fail(self, failure: Exception) -> None:
        """Nothing can be recognised any more: say so everywhere, serve nobody."""
        logger.critical("the engine has failed", exc_info=failure)
        self.condition.failure = failure
        self._registry.close()
        self.give_up(EngineFailureError("the engine has failed; the server ends"))


def _unavailable(why: str) -> Response:
    return PlainTextResponse(f"{why}\n", 503, {"retry-after": str(RETRY_AFTER_S)})
