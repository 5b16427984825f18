"""Steps on their way: copies that arrive later, and the device's time."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.scheduling.steps import StepResult, join


class Copied:
    """A tensor on its way to the host; to be read once the step it came from is over."""

    def __init__(self, source: Tensor) -> None:
        self._host = torch.empty(
            source.shape, dtype=source.dtype, pin_memory=source.device.type == "cuda"
        )
        self._host.copy_(source, non_blocking=True)

    def numpy(self) -> np.ndarray[Any, Any]:
        """What has arrived, without copying."""
        return self._host.numpy()


class Stopwatch:
    """The device's time between construction and `stop`.

    Where it had nothing to do before, the host's time for launching is within it.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._started: Any = self._now()
        self._stopped: Any = None

    def _now(self) -> Any:
        if not self._on_gpu:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def stop(self) -> None:
        """What was launched until now is what is measured."""
        self._stopped = self._now()

    def wait(self) -> None:
        """Return once all of it is over."""
        if self._on_gpu:
            self._stopped.synchronize()

    def seconds(self) -> float | None:
        """How long it took; None while it goes on."""
        if not self._on_gpu:
            return float(self._stopped - self._started)
        if not self._stopped.query():
            return None
        return float(self._started.elapsed_time(self._stopped)) / 1000


class Launched:
    """One launched step; `waits` where its result is the device's to know."""

    def __init__(self, read: Callable[[], StepResult], watch: Stopwatch, *, waits: bool) -> None:
        self._read = read
        self._watch = watch
        self._waits = waits

    def result(self) -> StepResult:
        """Wait for the step where that is needed, and read what it came to."""
        if self._waits:
            self._watch.wait()
        return self._read()

    def seconds(self) -> float | None:
        """The device's time for the step."""
        return self._watch.seconds()


class Joined:
    """The two halves of a step that did not fit into memory."""

    def __init__(self, halves: Sequence[Launched]) -> None:
        self._halves = halves

    def result(self) -> StepResult:
        """Both halves' rows."""
        first, second = (half.result() for half in self._halves)
        return join(first, second)

    def seconds(self) -> float | None:
        """Both halves' time."""
        times = [half.seconds() for half in self._halves]
        known = [time for time in times if time is not None]
        return sum(known) if len(known) == len(times) else None
