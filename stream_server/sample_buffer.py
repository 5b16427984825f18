"""A stretch of the sample clock whose samples are still needed.

Decides nothing but where samples lie; the session decides how long they are kept.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE, Samples

INITIAL_SAMPLES: Final = SAMPLE_RATE  # a live session keeps its pre-roll and a few VAD frames


class SampleBuffer:
    """Samples [start, end) of a session's clock, appended at the end, discarded at the start.

    Touched only by its session. Grows to what is kept at once and is never shrunk: backlog is
    bounded elsewhere.
    """

    def __init__(self) -> None:
        self._data = np.empty(INITIAL_SAMPLES, np.float32)
        self._first = 0  # index in _data of the sample at `start`
        self.start = Samples(0)
        self.end = Samples(0)

    def append(self, samples: NDArray[np.float32]) -> None:
        """Add what follows `end`; `samples` is float32 [n]."""
        kept = self.end - self.start
        if self._first + kept + len(samples) > len(self._data):
            needed = kept + len(samples)
            # Twice what is needed, so that moving costs a constant per sample.
            data = self._data if 2 * needed <= len(self._data) else np.empty(2 * needed, np.float32)
            data[:kept] = self._data[self._first : self._first + kept]
            self._data, self._first = data, 0
        begin = self._first + kept
        self._data[begin : begin + len(samples)] = samples
        self.end = Samples(self.end + len(samples))

    def read(self, start: Samples, end: Samples) -> NDArray[np.float32]:
        """A copy of [start, end). Raises ValueError where some of it is not held."""
        if not self.start <= start <= end <= self.end:
            raise ValueError(f"samples {start} to {end}: only {self.start} to {self.end} are held")
        begin = self._first + start - self.start
        return self._data[begin : begin + end - start].copy()

    def discard_before(self, position: Samples) -> None:
        """Forget what lies before `position`; a position already passed changes nothing."""
        position = Samples(min(position, self.end))
        if position > self.start:
            self._first += position - self.start
            self.start = position
