"""Voice activity detection: the thread that scores every session's VAD frames.

One call of `SileroNet` per tick for all sessions that have frames waiting, off the event loop.
What the probabilities mean is decided by the endpointer.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from engine.metrics import StepMetrics
from stream_server.endpointer import VAD_FRAME_SAMPLES
from stream_server.silero_net import DetectorError, Frames, Probabilities, SileroNet, VadState

logger = logging.getLogger(__name__)

TICK_S: Final = 0.032  # one frame of every live session per call; a shorter tick only costs calls
MAX_FRAMES_PER_CALL: Final = 32  # of one stream: a file sent at once delays the others by ms, not s

Deliver = Callable[[Probabilities], None]


@dataclass(slots=True)
class _Request:
    """Frames of one `score` call, and how many of them have been scored."""

    frames: Frames
    deliver: Deliver
    scores: Probabilities
    num_scored: int = 0

    @property
    def complete(self) -> bool:
        return self.num_scored == len(self.scores)

    def accept(self, values: Probabilities) -> None:
        self.scores[self.num_scored : self.num_scored + len(values)] = values
        self.num_scored += len(values)


class SileroStream:
    """One session's place in the detector: `score` frames in order, `close` to leave."""

    def __init__(self, detector: "SileroVad") -> None:
        self._detector = detector
        # The fields below are touched by the VAD thread; those it shares, under the detector's
        # condition.
        self.state = VadState()
        self.waiting: deque[_Request] = deque()
        self.closed = False

    def score(self, frames: Frames, deliver: Deliver) -> None:
        """Queue the stream's next frames [n, 512]; `deliver` gets [n] on the VAD thread, in order.

        `frames` must not be written to afterwards. Raises ValueError for another shape or type,
        DetectorError when the detector has stopped or the stream is closed.
        """
        if (
            frames.dtype != np.float32
            or frames.ndim != 2
            or len(frames) == 0
            or frames.shape[1] != VAD_FRAME_SAMPLES
        ):
            raise ValueError(
                f"VAD frames: got {frames.dtype} {list(frames.shape)}, "
                f"accepted: float32 [n, {VAD_FRAME_SAMPLES}] with n of 1 or more"
            )
        scores = np.empty(len(frames), np.float32)
        self._detector._submit(self, _Request(frames, deliver, scores))

    def close(self) -> None:
        """Forget what waits and what is remembered; a delivery already under way may still come."""
        self._detector._discard(self)


class SileroVad:
    """Scores all sessions' frames in one thread, one batched call per tick.

    `open`, `score` and `close` may be called from any thread. While no frame waits, the thread
    sleeps; the first frame after that is scored at once.
    """

    def __init__(self, net: SileroNet | None = None) -> None:
        self.metrics = StepMetrics()  # calls, and the VAD frames in them; written by the thread
        self._net = net or SileroNet()
        self._condition = threading.Condition()
        self._ready: dict[SileroStream, None] = {}  # streams with frames waiting, oldest first
        self._stopped = False
        self._failure: Exception | None = None
        self._on_failure: Callable[[Exception], None] | None = None
        self._thread = threading.Thread(target=self._run, name="vad", daemon=True)
        self._warm = threading.Event()

    def on_failure(self, callback: Callable[[Exception], None]) -> None:
        """`callback` is told, on the VAD thread, what ended it; at once where that has happened."""
        with self._condition:
            self._on_failure = callback
            failure = self._failure
        if failure is not None:
            callback(failure)

    def start(self) -> None:
        """Start the thread and wait until it has scored a first frame (warm-up).

        Raises DetectorError where that fails.
        """
        num_threads = torch.get_num_threads()
        self._thread.start()
        self._warm.wait()
        # set_num_threads in the VAD thread is also what threads born later would inherit; saying
        # this thread's own number again takes that back and leaves the VAD thread at one.
        torch.set_num_threads(num_threads)
        if self._failure is not None:
            raise DetectorError(f"voice activity detection: {self._failure}") from self._failure

    def stop(self) -> None:
        """End the thread; frames still waiting are not scored. May be called twice."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def open(self) -> SileroStream:
        """A new stream, with nothing heard yet."""
        return SileroStream(self)

    def _submit(self, stream: SileroStream, request: _Request) -> None:
        with self._condition:
            if self._stopped:
                raise DetectorError("the voice activity detector has stopped")
            if stream.closed:
                raise DetectorError("this stream of the voice activity detector is closed")
            stream.waiting.append(request)
            if not self._ready:
                self._condition.notify()
            self._ready[stream] = None

    def _discard(self, stream: SileroStream) -> None:
        with self._condition:
            stream.closed = True
            stream.waiting.clear()
            self._ready.pop(stream, None)

    def _run(self) -> None:
        # One thread: the products are too small to share, and the engine needs the other cores.
        torch.set_num_threads(1)
        try:
            self._net.advance([VadState()], [np.zeros((1, VAD_FRAME_SAMPLES), np.float32)])
            self._warm.set()
            tick = time.monotonic()
            while self._wait_for_work(tick):
                started = time.monotonic()
                backlog = self._score_once()
                tick = started if backlog else started + TICK_S
        except Exception as exc:  # noqa: BLE001  # the thread's boundary: the server must hear of it
            self._fail(exc)
        finally:
            self._warm.set()

    def _wait_for_work(self, tick: float) -> bool:
        """Wait for frames, then until `tick`, so that others can join; False once stopped."""
        with self._condition:
            self._condition.wait_for(lambda: self._ready or self._stopped)
            self._condition.wait_for(lambda: self._stopped, timeout=tick - time.monotonic())
            return not self._stopped

    def _score_once(self) -> bool:
        """One batched call over what waits now, at most MAX_FRAMES_PER_CALL of each stream.

        Returns whether a stream used its whole share: a backlog need not await a tick.
        """
        with self._condition:
            taken = [(stream, _take(stream.waiting)) for stream in self._ready]
        if not taken:
            return False  # every stream that had frames was closed meanwhile
        started = time.perf_counter()
        states, scores = self._net.advance(
            [stream.state for stream, _ in taken],
            [np.concatenate([part for _, part in parts]) for _, parts in taken],
        )
        self.metrics.record(sum(map(len, scores)), time.perf_counter() - started)
        finished: list[_Request] = []
        with self._condition:
            for (stream, parts), state, values in zip(taken, states, scores, strict=True):
                if stream.closed:
                    continue
                stream.state = state
                start = 0
                for request, part in parts:
                    request.accept(values[start : start + len(part)])
                    start += len(part)
                    if request.complete:
                        finished.append(stream.waiting.popleft())
                if not stream.waiting:
                    del self._ready[stream]
        for request in finished:
            request.deliver(request.scores)
        return any(sum(len(p) for _, p in parts) == MAX_FRAMES_PER_CALL for _, parts in taken)

    def _fail(self, exc: Exception) -> None:
        logger.error("the voice activity detector failed", exc_info=exc)
        with self._condition:
            self._stopped = True
            self._failure = exc
            callback = self._on_failure
        if callback is not None:
            callback(exc)


def _take(waiting: Sequence[_Request]) -> list[tuple[_Request, Frames]]:
    """The next frames of one stream, oldest first, each part with the request it belongs to."""
    parts: list[tuple[_Request, Frames]] = []
    room = MAX_FRAMES_PER_CALL
    for request in waiting:
        part = request.frames[request.num_scored :][:room]
        parts.append((request, part))
        room -= len(part)
        if room == 0:
            break
    return parts
