"""A real engine whose runner fails, waits or talks nonsense where a test tells it to."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, cast

from engine.assembly import Engine
from engine.runtime.runner import Runner
from engine.scheduling.steps import DecodeStep, LanguageRow, Step, StepResult, TokensResult


class StepRunner(Protocol):
    """What the loop asks of a runner."""

    def run(self, step: Step) -> StepResult: ...


def with_runner(engine: Engine, runner: StepRunner) -> Engine:
    """The same engine, with its steps in other hands."""
    return replace(engine, runner=cast(Runner, runner))


class FailingRunner:
    """Raises `failures[n]` instead of running step n, counted from 1."""

    def __init__(self, runner: StepRunner, failures: Mapping[int, Exception]) -> None:
        self._runner = runner
        self._failures = failures
        self._num_steps = 0

    def run(self, step: Step) -> StepResult:
        self._num_steps += 1
        if self._num_steps in self._failures:
            raise self._failures[self._num_steps]
        return self._runner.run(step)


class GatedRunner:
    """Says when a step has begun, and runs it once the gate is open."""

    def __init__(self, runner: StepRunner) -> None:
        self._runner = runner
        self.begun = threading.Event()
        self.gate = threading.Event()

    def run(self, step: Step) -> StepResult:
        self.begun.set()
        self.gate.wait()
        return self._runner.run(step)


class SenselessRunner:
    """Answers every step with a language that is none, which the scheduler cannot take."""

    def run(self, step: Step) -> StepResult:
        slots = step.slots if isinstance(step, DecodeStep) else [row.slot for row in step.rows]
        return TokensResult(tuple(LanguageRow(slot, 0, 1.0) for slot in slots))
