"""An engine around the fake runner, for what drives one through `engine.loop.Loop`."""

from engine.assembly import Engine
from engine.events import ModelInfo
from engine.runtime.pending import Done, Pending
from engine.scheduling.steps import Step
from tests.support.fake_runner import FakeRunner, Rig


class Launcher:
    """A fake runner whose steps are done when they are launched, having taken `step_s` each."""

    run_ahead = 0

    def __init__(self, runner: FakeRunner, step_s: float = 0.0) -> None:
        self._runner = runner
        self._step_s = step_s

    def launch(self, step: Step) -> Pending:
        return Done(self._runner.run(step), self._step_s)


def engine_of(rig: Rig, step_s: float = 0.0) -> Engine:
    """The scheduler and the runner of `rig` as an engine that knows English."""
    info = ModelInfo("fake", ("en",), ("transcribe",))
    return Engine(info, rig.scheduler, Launcher(rig.runner, step_s), rig.metrics)
