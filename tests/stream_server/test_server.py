import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import ConfigError
from stream_server.config import ServerConfig
from stream_server.server import bind, build_app, run
from tests.support.memory_engine import MemoryEngine
from tests.support.scripted_detector import ScriptedDetector


def test_an_address_taken_by_another_is_refused_with_its_name() -> None:
    with closing(bind(ServerConfig(port=0))) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}: "):
            bind(ServerConfig(port=port))


def test_nobody_can_connect_before_the_server_listens() -> None:
    with closing(bind(ServerConfig(port=0))) as listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname())


def test_an_application_is_not_built_without_the_keys_it_was_told_to_ask_for(
    tmp_path: Path,
) -> None:
    config = ServerConfig(port=0, api_key_file=tmp_path / "none")
    with pytest.raises(ConfigError, match="api-key-file"):
        build_app(config, MemoryEngine(), ScriptedDetector())


@pytest.mark.parametrize("broken", ["engine", "detector"])
def test_a_failure_ends_the_server_with_status_1(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine, detector = MemoryEngine(), ScriptedDetector()
    engine.start()
    detector.start()
    statuses: list[int] = []
    config = ServerConfig(port=0)
    try:
        with closing(bind(config)) as listener:
            thread = threading.Thread(
                target=lambda: statuses.append(run(config, engine, detector, listener))
            )
            thread.start()
            failing = engine if broken == "engine" else detector
            failing.wait_until_watched()
            failing.break_down(RuntimeError("lost the device"))
            thread.join()
    finally:
        detector.stop()
        engine.stop()
    assert statuses == [1]
    assert "lost the device" in caplog.text
