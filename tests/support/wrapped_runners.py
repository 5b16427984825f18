"""A real engine whose runner fails, waits or talks nonsense where a test tells it to."""

import threading
from collections.abc import Mapping
from dataclasses import replace

from engine.assembly import Engine
from engine.runtime.pending import Done, Pending, StepRunner
from engine.scheduling.steps import LanguageRow, Step, TokensResult, slots_of


def with_runner(engine: Engine, runner: StepRunner) -> Engine:
    """The same engine, with its steps in other hands."""
    return replace(engine, runner=runner)


class FailingRunner:
    """Raises `failures[n]` instead of running step n, counted from 1."""

    def __init__(self, runner: StepRunner, failures: Mapping[int, Exception]) -> None:
        self._runner = runner
        self._failures = failures
        self._num_steps = 0

    run_ahead = 0

    def launch(self, step: Step) -> Pending:
        self._num_steps += 1
        if self._num_steps in self._failures:
            raise self._failures[self._num_steps]
        return self._runner.launch(step)


class GatedRunner:
    """Says when a step has begun, and runs it once the gate is open."""

    def __init__(self, runner: StepRunner) -> None:
        self._runner = runner
        self.begun = threading.Event()
        self.gate = threading.Event()

    run_ahead = 0

    def launch(self, step: Step) -> Pending:
        self.begun.set()
        self.gate.wait()
        return self._runner.launch(step)


class SenselessRunner:
    """Answers every step with a language that is none, which the scheduler cannot take."""

    run_ahead = 0

    def launch(self, step: Step) -> Pending:
        rows = tuple(LanguageRow(slot, 0, 1.0) for slot in slots_of(step))
        return Done(TokensResult(rows), 0.0)
