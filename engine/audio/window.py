"""The audio of one segment: anchored at its start, growing, handed out as views."""

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE, Samples

_INITIAL_CAPACITY = 4 * SAMPLE_RATE  # most utterances fit without growing


class Window:
    """Samples from `start` on, on the session's clock. Touched only by the engine thread.

    Views handed out stay valid and unchanged: appending writes behind them, growing and
    cutting move to a new buffer.
    """

    def __init__(self, start: Samples) -> None:
        self.start = start
        self._buffer = np.empty(_INITIAL_CAPACITY, dtype=np.float32)
        self._count = 0

    @property
    def num_samples(self) -> Samples:
        """Samples held."""
        return Samples(self._count)

    @property
    def end(self) -> Samples:
        """Position of the first sample not yet held."""
        return Samples(self.start + self._count)

    def append(self, samples: NDArray[np.float32]) -> None:
        """Add `samples` [n] at the end."""
        needed = self._count + len(samples)
        if needed > len(self._buffer):
            grown = np.empty(max(needed, 2 * len(self._buffer)), dtype=np.float32)
            grown[: self._count] = self._buffer[: self._count]
            self._buffer = grown
        self._buffer[self._count : needed] = samples
        self._count = needed

    def view(self, num_samples: int) -> NDArray[np.float32]:
        """The first `num_samples` samples, without copying."""
        if num_samples > self._count:
            raise ValueError(f"view of {num_samples} samples asked for, {self._count} are held")
        view = self._buffer[:num_samples]
        view.flags.writeable = False
        return view

    def cut(self, at: Samples) -> None:
        """Forget everything before position `at`; the window then starts there."""
        if not self.start <= at <= self.end:
            raise ValueError(f"cut at {at} is outside of [{self.start}, {self.end}]")
        rest = self._buffer[at - self.start : self._count].copy()
        self.start = at
        self._buffer = np.empty(max(_INITIAL_CAPACITY, len(rest)), dtype=np.float32)
        self._buffer[: len(rest)] = rest
        self._count = len(rest)
