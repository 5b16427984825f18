"""The loop with an engine of random weights, and with a runner that fails where it is told to."""

from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import torch

from engine.assembly import Engine
from engine.audio.units import Samples
from engine.config import QualityThresholds
from engine.errors import DeviceError
from engine.events import (
    AppendAudio,
    Command,
    EngineEvent,
    FinishUtterance,
    OpenUtterance,
    SegmentClosed,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
    UtteranceOptions,
)
from engine.loop import Loop
from engine.runtime.pending import Pending, StepRunner
from engine.scheduling.steps import Step, StepResult
from tests.support.checkpoints import make_checkpoint
from tests.support.engines import GREEDY, babble, load_engine
from tests.support.wrapped_runners import FailingRunner, with_runner

# No hypothesis of random weights is tried again, so the number of steps is known.
CONFIG = replace(
    GREEDY, thresholds=QualityThresholds(compression_ratio=inf, avg_logprob=-inf, no_speech=2.0)
)
OPTIONS = UtteranceOptions(language="en", interim_results=False, context="trimmed")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("loop"), "tiny.en")


def utterance(number: int, seconds: float = 1.0) -> list[Command]:
    utterance_id = UtteranceId(number)
    return [
        OpenUtterance(utterance_id, Samples(0), OPTIONS),
        AppendAudio(utterance_id, babble(seconds, seed=number)),
        FinishUtterance(utterance_id),
    ]


def run(engine: Engine, *utterances: list[Command]) -> list[EngineEvent]:
    events: list[EngineEvent] = []
    loop = Loop(engine, events.append)
    for commands in utterances:
        loop.take(commands)
    while loop.run_step():
        pass
    return events


def failing(engine: Engine, number: int, error: Exception) -> Engine:
    """`engine`, whose step of that number, counted from 1, raises."""
    return with_runner(engine, FailingRunner(engine.runner, {number: error}))


def test_nothing_to_do_is_said_and_no_step_is_counted(directory: Path) -> None:
    engine, events = load_engine(directory, CONFIG), list[EngineEvent]()
    assert not Loop(engine, events.append).run_step()
    assert engine.metrics.steps == {}


def test_commands_become_steps_and_steps_events(directory: Path) -> None:
    engine = load_engine(directory, CONFIG)
    closed, finished = run(engine, utterance(1))
    assert isinstance(closed, SegmentClosed)
    assert closed.tokens
    assert finished == UtteranceFinished(UtteranceId(1))


def test_events_that_a_command_brings_about_are_published_at_once(directory: Path) -> None:
    events: list[EngineEvent] = []
    loop = Loop(load_engine(directory, CONFIG), events.append)
    loop.take([OpenUtterance(UtteranceId(3), Samples(0), OPTIONS), FinishUtterance(UtteranceId(3))])
    assert events == [UtteranceFinished(UtteranceId(3))]


def test_every_step_is_counted_with_its_rows(directory: Path) -> None:
    engine = load_engine(directory, CONFIG)
    run(engine, utterance(1), utterance(2))
    steps = engine.metrics.steps
    assert steps["EncodeStep"].rows == steps["PrefillStep"].rows == 2
    assert steps["DecodeStep"].count <= steps["DecodeStep"].rows <= 2 * steps["DecodeStep"].count
    assert all(kind.seconds > 0 for kind in steps.values())


@pytest.mark.parametrize(("number", "kind"), [(1, "EncodeStep"), (2, "PrefillStep")])
def test_a_step_that_raises_ends_its_utterances_with_the_reason(
    directory: Path, number: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = failing(load_engine(directory, CONFIG), number, RuntimeError("lost the device"))
    assert run(engine, utterance(1)) == [
        UtteranceFailed(UtteranceId(1), "RuntimeError: lost the device")
    ]
    assert f"{kind} of 1 rows failed" in caplog.text
    assert kind not in engine.metrics.steps
    assert engine.metrics.failures == 1


def test_utterances_of_other_steps_go_on_as_if_nothing_had_happened(directory: Path) -> None:
    """Lengths of two contexts, so that each is encoded by a step of its own."""
    alone = run(load_engine(directory, CONFIG), utterance(2, seconds=4.0))
    engine = failing(load_engine(directory, CONFIG), 1, RuntimeError("once"))
    events = run(engine, utterance(1), utterance(2, seconds=4.0))
    assert events == [UtteranceFailed(UtteranceId(1), "RuntimeError: once"), *alone]


def test_a_failed_utterance_gives_its_slot_back(directory: Path) -> None:
    engine = failing(load_engine(directory, CONFIG), 1, RuntimeError("once"))
    run(engine, utterance(1))
    assert engine.scheduler.num_utterances == 0
    engine.scheduler.check()
    assert isinstance(run(engine, utterance(1))[0], SegmentClosed)


def test_utterances_that_have_not_ended_are_counted(directory: Path) -> None:
    engine, events = load_engine(directory, CONFIG), list[EngineEvent]()
    loop = Loop(engine, events.append)
    loop.take([*utterance(1), *utterance(2)])
    assert engine.metrics.utterances == 2
    while loop.run_step():
        pass
    assert engine.metrics.utterances == 0


def test_an_utterance_whose_step_failed_has_ended(directory: Path) -> None:
    engine = failing(load_engine(directory, CONFIG), 1, RuntimeError("lost the device"))
    run(engine, utterance(1))
    assert engine.metrics.utterances == 0


def test_a_device_that_has_failed_ends_the_loop(directory: Path) -> None:
    engine = failing(load_engine(directory, CONFIG), 2, torch.AcceleratorError("illegal access"))
    with pytest.raises(DeviceError, match="the device failed: illegal access"):
        run(engine, utterance(1))


class LateRunner:
    """Runs a step at once and keeps its result back until it is asked for; counts launches."""

    run_ahead = 1

    def __init__(self, runner: StepRunner, *, fails_at: int = 0) -> None:
        self._runner = runner
        self._fails_at = fails_at
        self.launched = 0
        self.taken = 0
        self.most_ahead = 0

    def launch(self, step: Step) -> Pending:
        self.launched += 1
        self.most_ahead = max(self.most_ahead, self.launched - self.taken)
        return LateResult(self, self._runner.launch(step), fails=self.launched == self._fails_at)


class LateResult:
    def __init__(self, runner: LateRunner, pending: Pending, *, fails: bool) -> None:
        self._runner = runner
        self._pending = pending
        self._fails = fails
        self._asked = 0

    def result(self) -> StepResult:
        self._runner.taken += 1
        if self._fails:
            raise RuntimeError("too late")
        return self._pending.result()

    def seconds(self) -> float | None:
        self._asked += 1
        return self._pending.seconds() if self._asked > 1 else None


def test_a_step_is_launched_before_the_result_of_the_one_before_it_is_taken(
    directory: Path,
) -> None:
    known = run(load_engine(directory, CONFIG), utterance(1), utterance(2))
    engine = load_engine(directory, CONFIG)
    runner = LateRunner(engine.runner)
    events = run(with_runner(engine, runner), utterance(1), utterance(2))
    assert sorted(map(str, events)) == sorted(map(str, known))
    assert runner.most_ahead == 2
    assert runner.taken == runner.launched
    steps = engine.metrics.steps
    assert sum(kind.count for kind in steps.values()) >= runner.launched - 1


def test_a_result_that_fails_late_ends_its_utterances_and_frees_their_slots(
    directory: Path,
) -> None:
    engine = load_engine(directory, CONFIG)
    runner = LateRunner(engine.runner, fails_at=3)
    events = run(with_runner(engine, runner), utterance(1))
    assert events == [UtteranceFailed(UtteranceId(1), "RuntimeError: too late")]
    engine.scheduler.check()
