"""The ASGI application and its life: put together, warm up, listen, drain on a signal.

`build_app` gives an application that any ASGI server can host; `serve` is this project's own
way to run it, from loading the model to the exit status.
"""

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator
from types import FrameType
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from engine.worker import Worker
from stream_server.access import AccessPolicy
from stream_server.config import ServerConfig, engine_config
from stream_server.connection import Engine
from stream_server.endpointer import SpeechDetector
from stream_server.errors import ShuttingDownError
from stream_server.http_routes import http_routes
from stream_server.loop_lag import LoopLag, watch
from stream_server.metrics import Exporter
from stream_server.protocol import STREAM_PATH
from stream_server.service import CLOSE_GRACE_S, StreamService
from stream_server.vad import SileroVad

logger = logging.getLogger(__name__)

# Frames over this are refused by the websocket layer, which cannot say why; up to it they are
# read and answered with `message_too_large`.
WEBSOCKET_LIMIT_FACTOR: Final = 4
PING_S: Final = 20  # finds a client that vanished; independent of any decoding


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
