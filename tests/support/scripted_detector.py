"""A detector that takes loud for speech, on a thread of its own."""

import queue
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.metrics import StepMetrics

LOUD = 0.05  # root mean square

Deliver = Callable[[NDArray[np.float32]], None]


def loudness_scores(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frames [n, samples] to probabilities [n]."""
    loud = np.sqrt(np.mean(np.square(frames), axis=1)) > LOUD
    return np.asarray(loud, np.float32)


class ScriptedStream:
    def __init__(self, detector: "ScriptedDetector") -> None:
        self._detector = detector
        self.closed = False

    def score(self, frames: NDArray[np.float32], deliver: Deliver) -> None:
        def work() -> None:
            if not self.closed:
                self._detector.metrics.record(len(frames), 0.001)
                deliver(loudness_scores(frames))

        self._detector.work.put(work)

    def close(self) -> None:
        self.closed = True
        self._detector.num_open -= 1


class ScriptedDetector:
    """Scores at once; `hold` keeps scores back until `let_go`."""

    def __init__(self) -> None:
        self.num_open = 0
        self.metrics = StepMetrics()
        self.work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._go = threading.Event()
        self._go.set()
        self._callbacks: list[Callable[[Exception], None]] = []
        self._watched = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scripted-detector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._go.set()
        self.work.put(None)
        self._thread.join()

    def hold(self) -> None:
        self._go.clear()

    def let_go(self) -> None:
        self._go.set()

    def open(self) -> ScriptedStream:
        self.num_open += 1
        return ScriptedStream(self)

    def on_failure(self, callback: Callable[[Exception], None]) -> None:
        self._callbacks.append(callback)
        self._watched.set()

    def wait_until_watched(self) -> None:
        """Until somebody asked to hear of a failure."""
        self._watched.wait()

    def break_down(self, failure: Exception) -> None:
        """Fail as a whole, on the detector's thread."""

        def fail() -> None:
            for callback in self._callbacks:
                callback(failure)

        self.work.put(fail)

    def _run(self) -> None:
        while (work := self.work.get()) is not None:
            self._go.wait()
            work()
