"""The engine's loop: drain the mailbox, launch a step, take the result of one, publish.

The one boundary in the engine where any exception is caught: a step that fails ends its own
utterances with `UtteranceFailed` and the loop goes on. Only a device that has failed as a whole
ends the loop, for every step after it would fail too.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable

import torch

from engine.assembly import Engine
from engine.errors import DeviceError
from engine.events import Command, EngineEvent
from engine.runtime.pending import Pending
from engine.scheduling.steps import Step, slots_of

logger = logging.getLogger(__name__)

Publish = Callable[[EngineEvent], None]


class Loop:
    """Drives one engine. Touched only by the engine thread.

    `clock` reads seconds and never goes back.
    """

    def __init__(
        self, engine: Engine, publish: Publish, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._engine = engine
        self._publish = publish
        self._clock = clock
        self._in_flight: deque[tuple[Step, Pending]] = deque()
        self._unmeasured: deque[tuple[Step, Pending]] = deque()

    def take(self, commands: Iterable[Command]) -> None:
        """Hand commands to the scheduler, in order."""
        for command in commands:
            self._publish_all(self._engine.scheduler.handle(command, self._clock()))

    def run_step(self) -> bool:
        """Launch a step, or take the result of one; False where there is nothing to do.

        Then nothing happens until another command comes. Raises DeviceError.
        """
        scheduler, runner = self._engine.scheduler, self._engine.runner
        step = scheduler.next_step(self._clock())
        if step is not None:
            try:
                self._in_flight.append((step, runner.launch(step)))
            except Exception as exc:  # noqa: BLE001 - the boundary
                self._fail(step, exc)
                return True
        if self._in_flight and (step is None or len(self._in_flight) > runner.run_ahead):
            self._take_result()
        elif step is None:
            self._measure()
            scheduler.check()
            return False
        return True

    def _take_result(self) -> None:
        """Take the oldest result; waits for it where the device is not done."""
        step, pending = self._in_flight.popleft()
        try:
            result = pending.result()
        except Exception as exc:  # noqa: BLE001 - the boundary
            self._fail(step, exc)
            return
        self._publish_all(self._engine.scheduler.apply(result))
        self._unmeasured.append((step, pending))
        self._measure()

    def _measure(self) -> None:
        """Record the device's time for the steps it is known to be done with, in order."""
        while self._unmeasured:
            step, pending = self._unmeasured[0]
            seconds = pending.seconds()
            if seconds is None:
                return
            self._unmeasured.popleft()
            self._engine.metrics.record_step(type(step).__name__, len(slots_of(step)), seconds)
            self._engine.scheduler.charge(seconds)

    def _fail(self, step: Step, exc: Exception) -> None:
        if isinstance(exc, torch.AcceleratorError):  # no kernel can be launched after it
            raise DeviceError(f"the device failed: {exc}") from exc
        logger.error("%s of %d rows failed", type(step).__name__, len(slots_of(step)), exc_info=exc)
        message = f"{type(exc).__name__}: {exc}"
        self._publish_all(self._engine.scheduler.fail(step, message))

    def _publish_all(self, events: Iterable[EngineEvent]) -> None:
        self._engine.metrics.utterances = self._engine.scheduler.num_utterances
        for event in events:
            self._publish(event)
