"""A server with fakes as a process of its own, for tests of signals.

Its log, the ready line first, goes to standard output.
"""

import logging
import sys
from contextlib import closing

from stream_server.config import ServerConfig
from stream_server.server import bind, run
from tests.support.memory_engine import MemoryEngine
from tests.support.scripted_detector import ScriptedDetector


def main(mode: str, argv: list[str]) -> int:
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = ServerConfig.from_args(["--port", "0", *argv])
    engine, detector = MemoryEngine(), ScriptedDetector()
    engine.start()
    detector.start()
    if mode == "held":
        engine.hold()
    with closing(bind(config)) as listener:
        status = run(config, engine, detector, listener)
    engine.let_go()
    detector.stop()
    engine.stop()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
