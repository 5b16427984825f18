"""The ASGI application and its life: authenticate, admit, warm up, drain on a signal.

`build_app` gives an application that any ASGI server can host; `serve` is this project's own
way to run it, from loading the model to the exit status.
"""

import asyncio
import contextlib
import gc
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Final, get_args

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from engine.worker import Worker
from stream_server.access import AccessPolicy
from stream_server.config import ServerConfig, engine_config
from stream_server.connection import Connection, ConnectionLimits, Engine
from stream_server.endpointer import SpeechDetector
from stream_server.errors import EngineFailureError, SessionError, ShuttingDownError
from stream_server.http_routes import Condition, http_routes, unauthorized
from stream_server.loop_lag import LoopLag, watch
from stream_server.loop_mailbox import LoopMailbox
from stream_server.metrics import Exporter, Snapshot
from stream_server.protocol import CODECS, JSON_SUBPROTOCOL, STREAM_PATH
from stream_server.registry import Admission, Registry, SpeechShare, measured_capacity
from stream_server.session import Session
from stream_server.session_meter import SessionMeter
from stream_server.totals import RefusalReason, SessionState, Totals
from stream_server.vad import SileroVad

logger = logging.getLogger(__name__)

# Frames over this are refused by the websocket layer, which cannot say why; up to it they are
# read and answered with `message_too_large`.
WEBSOCKET_LIMIT_FACTOR: Final = 4
PING_S: Final = 20  # finds a client that vanished; independent of any decoding
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
        self._registry.capacity = measured_capacity(self._engine.metrics.s_per_speech_s, share)

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


def build_app(config: ServerConfig, engine: Engine, detector: SpeechDetector) -> Starlette:
    """The application, for an engine and a detector that have started.

    Its `state.service` is the StreamService. Raises ConfigError.
    """
    policy = AccessPolicy(config.read_api_keys(), config.allowed_origin)
    service = StreamService(config, policy, engine, detector)
    lag = LoopLag()
    exporter = None
    if config.metrics:
        exporter = Exporter(
            engine.info.name,
            engine.metrics,
            detector.metrics,
            service.totals,
            lag,
            service.snapshot,
        )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def fail(failure: Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
                loop.call_soon_threadsafe(service.fail, failure)

        engine.on_failure(fail)
        detector.on_failure(fail)
        watching = asyncio.create_task(watch(lag))
        try:
            yield
        finally:
            watching.cancel()

    app = Starlette(
        routes=[
            WebSocketRoute(STREAM_PATH, service),
            *http_routes(service.condition, lambda: engine.info, policy, service.refusal, exporter),
        ],
        lifespan=lifespan,
    )
    app.state.service = service
    return app


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's is worth logging.

    For every refusal that has been answered in full it says that the handshake was not completed
    (websockets_sansio_impl.py, `run_asgi`): an error a second for a server that is full.
    """
    return not record.getMessage().startswith("ASGI callable returned without completing handshake")


class Server(uvicorn.Server):
    """uvicorn, but sessions are drained before their sockets are closed.

    A first signal drains; a second gives up whatever is still open.
    """

    def __init__(self, config: ServerConfig, app: Starlette, ready_line: str) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                ws="websockets-sansio",
                ws_max_size=WEBSOCKET_LIMIT_FACTOR * config.max_message_bytes,
                ws_ping_interval=PING_S,
                ws_ping_timeout=PING_S,
                # Speech does not compress, and each compressor would hold 64 KiB a session.
                # (TCP_NODELAY needs no setting: asyncio and uvloop set it on every socket.)
                ws_per_message_deflate=False,
                lifespan="on",
                log_config=None,
                log_level="warning",  # what it says at the start and the end, we say
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=CLOSE_GRACE_S,
                ssl_certfile=config.tls_cert,
                ssl_keyfile=config.tls_key,
            )
        )
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        self._drain_timeout_s = config.drain_timeout_s
        self._service: StreamService = app.state.service
        self._loop: asyncio.AbstractEventLoop | None = None
        self.ready_line = ready_line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port, and say so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        logger.info("%s", self.ready_line)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end."""
        return self._service.condition.failure is not None or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, drain, then let uvicorn close what is left."""
        for server in self.servers:
            server.close()
        await self._service.drain(self._drain_timeout_s)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal. Not raised again after the drain, as uvicorn would: that ends in an error."""
        if self.should_exit and self._loop is not None:
            self.force_exit = True
            error = ShuttingDownError("the server was told twice to stop")
            self._loop.call_soon_threadsafe(self._service.give_up, error)
        self.should_exit = True


def serve(config: ServerConfig) -> int:
    """Load, warm up, listen until a signal or a failure; the exit status.

    Raises ConfigError, OSError for an address that cannot be had, or what loading raised. The
    address is taken first, so that a wrong one is known before a model is loaded; the port
    opens last.
    """
    with contextlib.closing(bind(config)) as listener:
        detector = SileroVad()
        worker = Worker(engine_config(config))
        try:
            worker.start()
            detector.start()
            # What was loaded stays. With it out of the collector's sight, a full collection is
            # cheap and comes often, instead of once in a thousand sessions (docs/log.md).
            gc.freeze()
            gc.collect()
            return run(config, worker, detector, listener)
        finally:
            detector.stop()
            worker.stop()


def bind(config: ServerConfig) -> socket.socket:
    """The address, taken but not listened on: connections to it are refused."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as exc:
        listener.close()
        raise OSError(exc.errno, f"{config.host} port {config.port}: {exc.strerror}") from exc
    return listener


def run(
    config: ServerConfig, engine: Engine, detector: SpeechDetector, listener: socket.socket
) -> int:
    """Serve what has started until a signal or a failure; the exit status."""
    app = build_app(config, engine, detector)
    host = f"[{config.host}]" if ":" in config.host else config.host
    tls = "s" if config.tls_cert else ""
    where = f"{host}:{listener.getsockname()[1]}"
    ready_line = f"{engine.info.name}: ws{tls}://{where}{STREAM_PATH}, page http{tls}://{where}/"
    Server(config, app, ready_line).run(sockets=[listener])
    return 0 if app.state.service.condition.failure is None else 1
