"""Engine threads around the embedded model, in float32, where what is said is reproducible."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Final

from engine.assembly import Engine
from engine.config import EngineConfig
from engine.events import (
    EngineEvent,
    SegmentClosed,
    UtteranceFailed,
    UtteranceFinished,
)
from engine.runtime.pending import StepRunner
from engine.worker import Worker
from tests.support.clips import REPOSITORY
from tests.support.engines import load_engine
from tests.support.wrapped_runners import with_runner

EMBEDDED_CONFIG: Final = EngineConfig(
    model="embedded", device="cpu", dtype="float32", num_slots=8, threads=1
)


@contextmanager
def running(worker: Worker) -> Iterator[Worker]:
    """Start, hand over, stop."""
    try:
        worker.start()
        yield worker
    finally:
        worker.stop()


def worker_with(wrap: Callable[[StepRunner], StepRunner]) -> Worker:
    """A worker around the embedded model, cold, whose runner is what `wrap` makes of it."""

    def build(config: EngineConfig) -> Engine:
        engine = load_engine(REPOSITORY / "engine" / "embedded", config)
        return with_runner(engine, wrap(engine.runner))

    return Worker(EMBEDDED_CONFIG, build)


class Listener:
    """Keeps the events that it is called with, for the test's thread to wait for."""

    def __init__(self) -> None:
        self._arriving: SimpleQueue[EngineEvent] = SimpleQueue()
        self.events: list[EngineEvent] = []

    def __call__(self, event: EngineEvent) -> None:
        self._arriving.put(event)

    def wait(self) -> EngineEvent:
        """The event that ends the utterance."""
        while not self.events or not isinstance(
            self.events[-1], UtteranceFinished | UtteranceFailed
        ):
            self.events.append(self._arriving.get())
        return self.events[-1]

    def heard(self) -> list[EngineEvent]:
        """Everything so far."""
        while not self._arriving.empty():
            self.events.append(self._arriving.get())
        return self.events

    @property
    def text(self) -> str:
        """What the finals say."""
        return " ".join(event.text for event in self.events if isinstance(event, SegmentClosed))
