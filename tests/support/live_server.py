"""A whole server on a free port of this machine, with an engine and a detector that are fakes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stream_server.config import ServerConfig
from stream_server.server import Server, StreamService, bind, build_app
from tests.support.memory_engine import MemoryEngine
from tests.support.scripted_detector import ScriptedDetector


@dataclass
class LiveServer:
    """What a test can reach of a running server."""

    port: int
    engine: MemoryEngine
    detector: ScriptedDetector
    service: StreamService
    server: Server
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    def http(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def live_server(**settings: Any) -> Iterator[LiveServer]:
    """Start, hand over, drain."""
    config = ServerConfig(port=0, **settings)
    engine, detector = MemoryEngine(), ScriptedDetector()
    engine.start()
    detector.start()
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
    port = listener.getsockname()[1]
    try:
        yield LiveServer(port, engine, detector, app.state.service, server, thread)
    finally:
        engine.let_go()
        detector.let_go()
        server.should_exit = True
        thread.join()
        detector.stop()
        engine.stop()
        listener.close()
