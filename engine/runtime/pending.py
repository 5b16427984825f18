"""A step that has been launched: what the loop holds until its result is there."""

from dataclasses import dataclass
from typing import Protocol

from engine.scheduling.steps import Step, StepResult


class Pending(Protocol):
    """A launched step."""

    def result(self) -> StepResult:
        """What came of it; waits where that is not known yet. Raises what the device raised."""

    def seconds(self) -> float | None:
        """How long the device worked at it; None while it does."""


class StepRunner(Protocol):
    """What the loop asks of whoever runs its steps.

    Up to `run_ahead` steps may be launched before the result of an earlier one is taken.
    """

    @property
    def run_ahead(self) -> int:
        """0 where a launch returns only once the step is over."""

    def launch(self, step: Step) -> Pending:
        """Begin a step. Steps run in the order of their launches."""


@dataclass(frozen=True, slots=True)
class Done:
    """A step that is over."""

    value: StepResult
    elapsed_s: float

    def result(self) -> StepResult:
        """What came of it."""
        return self.value

    def seconds(self) -> float:
        """How long it took."""
        return self.elapsed_s
