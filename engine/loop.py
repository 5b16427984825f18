"""The engine's loop: drain the mailbox, choose a step, run it, take its result, publish.

The one boundary in the engine where any exception is caught: a step that fails ends its own
utterances with `UtteranceFailed` and the loop goes on.
"""

import logging
import time
from collections.abc import Callable, Iterable

from engine.assembly import Engine
from engine.events import Command, EngineEvent
from engine.scheduling.steps import DecodeStep, Step

logger = logging.getLogger(__name__)

Publish = Callable[[EngineEvent], None]


class Loop:
    """Drives one engine. Touched only by the engine thread."""

    def __init__(self, engine: Engine, publish: Publish) -> None:
        self._engine = engine
        self._publish = publish

    def take(self, commands: Iterable[Command]) -> None:
        """Hand commands to the scheduler, in order."""
        for command in commands:
            self._publish_all(self._engine.scheduler.handle(command, time.perf_counter()))

    def run_step(self) -> bool:
        """Run one step; False where there is nothing to do until another command comes."""
        scheduler = self._engine.scheduler
        step = scheduler.next_step(time.perf_counter())
        if step is None:
            scheduler.check()
            return False
        started = time.perf_counter()
        try:
            result = self._engine.runner.run(step)
        except Exception as exc:
            logger.exception("%s of %d rows failed", type(step).__name__, num_rows(step))
            self._publish_all(scheduler.fail(step, f"{type(exc).__name__}: {exc}"))
            return True
        elapsed = time.perf_counter() - started
        self._engine.metrics.record_step(type(step).__name__, num_rows(step), elapsed)
        self._publish_all(scheduler.apply(result, elapsed))
        return True

    def _publish_all(self, events: Iterable[EngineEvent]) -> None:
        self._engine.metrics.utterances = self._engine.scheduler.num_utterances
        for event in events:
            self._publish(event)


def num_rows(step: Step) -> int:
    """Rows of a step of any kind."""
    return len(step.slots) if isinstance(step, DecodeStep) else len(step.rows)
