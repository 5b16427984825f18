"""A whole server on a free port of this machine, by default with a fake engine and detector."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stream_server.config import ServerConfig
from stream_server.connection import Engine
from stream_server.endpointer import SpeechDetector
from stream_server.server import Server, bind, build_app
from stream_server.service import StreamService
from tests.support.memory_engine import MemoryEngine
from tests.support.scripted_detector import ScriptedDetector


@dataclass
class RunningServer:
    """What a test can reach of a running server, whatever engine it has."""

    port: int
    service: StreamService
    server: Server
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    def http(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@dataclass
class LiveServer(RunningServer):
    """The same with the fakes, for a test to hold and to break."""

    engine: MemoryEngine
    detector: ScriptedDetector


@contextmanager
def serving(engine: Engine, detector: SpeechDetector, **settings: Any) -> Iterator[RunningServer]:
    """Serve with an engine and a detector that have started; drain in the end."""
    config = ServerConfig(port=0, **settings)
    listener = bind(config)
    app = build_app(config, engine, detector)
    ready = threading.Event()

    class AnnouncingServer(Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready.set()

    server = AnnouncingServer(config, app, "ready")
    thread = threading.Thread(target=server.run, args=([listener],), name="server")
    thread.start()
    ready.wait()
    try:
        yield RunningServer(listener.getsockname()[1], app.state.service, server, thread)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def live_server(**settings: Any) -> Iterator[LiveServer]:
    """Start, hand over, drain."""
    engine, detector = MemoryEngine(), ScriptedDetector()
    engine.start()
    detector.start()
    try:
        with serving(engine, detector, **settings) as it:
            try:
                yield LiveServer(it.port, it.service, it.server, it.thread, engine, detector)
            finally:
                engine.let_go()
                detector.let_go()
    finally:
        detector.stop()
        engine.stop()
