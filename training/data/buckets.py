"""Fixed shapes: which context a sample gets, and how many samples make a batch.

A back end that builds kernels by shape (oneDNN needs one to two seconds for each) then sees
few of them. Contexts are trimmed to the audio; a share is padded to 30 s, as a published
runtime would.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Final, Generic, TypeVar

from engine.audio.units import MAX_WINDOW_SAMPLES, Samples, samples_from_seconds

CONTEXTS: Final = tuple(
    samples_from_seconds(seconds)
    for seconds in (1.2, 1.8, 2.4, 3.0, 3.6, 4.4, 5.4, 6.6, 8.0, 10.0, 13.0, 17.0, 22.0, 30.0)
)
# Tokens are padded to a multiple of this.
TOKEN_STEP: Final = 16
_FULL_CONTEXT_SHARE: Final = 0.03
_FEWEST: Final = 2

S = TypeVar("S")


def context_for(samples: int) -> Samples:
    """The shortest context that holds `samples`."""
    for context in CONTEXTS:
        if samples <= context:
            return context
    raise ValueError(f"expected at most {MAX_WINDOW_SAMPLES} samples, got {samples}")


def rows_for(context: Samples, budget: Samples) -> int:
    """How many samples of that context a batch of `budget` samples of audio has."""
    return max(_FEWEST, budget // context)


@dataclass(slots=True)
class BatchQueue(Generic[S]):
    """Collects what belongs together until it makes a batch. Touched only by its owner."""

    budget: Samples
    rng: Random
    full_context_share: float = _FULL_CONTEXT_SHARE
    _waiting: dict[Samples, list[S]] = field(default_factory=dict)

    def add(self, item: S, samples: int) -> tuple[Samples, list[S]] | None:
        """Add an item of that length; returns a context and its batch when one is full."""
        context = context_for(samples)
        waiting = self._waiting.setdefault(context, [])
        waiting.append(item)
        rows = rows_for(context, self.budget)
        if len(waiting) < rows:
            return None
        if self.rng.random() < self.full_context_share:
            context, rows = MAX_WINDOW_SAMPLES, min(rows, rows_for(MAX_WINDOW_SAMPLES, self.budget))
        batch = waiting[:rows]
        del waiting[:rows]
        return context, batch
