import gc
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from stream_server.endpointer import SpeechDetector
from stream_server.silero_net import DetectorError, SileroNet, VadState
from stream_server.vad import MAX_FRAMES_PER_CALL, SileroVad
from tests.support.clips import TWO_SENTENCES, read_clip
from tests.support.vad_frames import Array, frames_of, noise

WAIT_S = 20  # only reached where the thread under test hangs


@pytest.fixture(scope="module")
def net() -> SileroNet:
    return SileroNet()


@pytest.fixture(scope="module")
def speech() -> Array:
    return read_clip(TWO_SENTENCES)


class Inbox:
    """Collects what a stream delivers."""

    def __init__(self) -> None:
        self.deliveries: list[Array] = []
        self._arrived = threading.Condition()

    def __call__(self, probabilities: Array) -> None:
        with self._arrived:
            self.deliveries.append(probabilities)
            self._arrived.notify()

    def wait(self, count: int = 1) -> list[Array]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.deliveries) >= count, WAIT_S)
        return self.deliveries


class GatedNet(SileroNet):
    """Notes how many frames of how many streams each call gets; waits at a gate before each."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(1)  # the warm-up passes

    def advance(
        self, states: Sequence[VadState], frames: Sequence[Array]
    ) -> tuple[list[VadState], list[Array]]:
        self.calls.append([len(part) for part in frames])
        self.entered.release()
        assert self.gate.acquire(timeout=WAIT_S)
        return super().advance(states, frames)


class FailingNet(SileroNet):
    """Scores `good_calls` times, then fails."""

    def __init__(self, good_calls: int) -> None:
        super().__init__()
        self.good_calls = good_calls

    def advance(
        self, states: Sequence[VadState], frames: Sequence[Array]
    ) -> tuple[list[VadState], list[Array]]:
        if self.good_calls == 0:
            raise RuntimeError("out of luck")
        self.good_calls -= 1
        return super().advance(states, frames)


@contextmanager
def started(net: SileroNet) -> Iterator[SileroVad]:
    detector = SileroVad(net)
    detector.start()
    try:
        yield detector
    finally:
        detector.stop()


def test_the_detector_delivers_every_stream_its_own_scores_in_order(
    net: SileroNet, speech: Array
) -> None:
    recordings = [frames_of(speech), frames_of(noise(70_000)), frames_of(speech[8_000:])]
    with started(net) as silero:
        detector: SpeechDetector = silero
        streams = [detector.open() for _ in recordings]
        inboxes = [Inbox() for _ in recordings]
        for start in range(0, len(recordings[0]), 10):
            for stream, inbox, frames in zip(streams, inboxes, recordings, strict=True):
                part = frames[start : start + 10]
                if len(part):
                    stream.score(part, inbox)
        for inbox, frames in zip(inboxes, recordings, strict=True):
            deliveries = inbox.wait(-(-len(frames) // 10))
            assert [len(part) for part in deliveries[:-1]] == [10] * (len(deliveries) - 1)
            np.testing.assert_allclose(
                np.concatenate(deliveries), net.score(frames.reshape(-1)), atol=1e-6
            )


def test_all_streams_that_wait_are_scored_in_one_call() -> None:
    net = GatedNet()
    with started(net) as detector:
        net.calls.clear()
        net.entered.acquire()
        first, others = Inbox(), [Inbox() for _ in range(5)]
        detector.open().score(frames_of(noise(512)), first)
        assert net.entered.acquire(timeout=WAIT_S)  # the call for the first is under way
        for inbox in others:
            detector.open().score(frames_of(noise(1024)), inbox)
        net.gate.release(2)
        for inbox in others:
            inbox.wait()
        assert net.calls == [[1], [2, 2, 2, 2, 2]]
        assert (detector.metrics.count, detector.metrics.rows) == (2, 11)
        assert detector.metrics.seconds > 0


def test_a_recording_sent_at_once_is_delivered_whole_without_filling_a_call() -> None:
    net = GatedNet()
    with started(net) as detector:
        net.calls.clear()
        net.gate.release(100)
        inbox = Inbox()
        frames = frames_of(noise(512 * (2 * MAX_FRAMES_PER_CALL + 5)))
        detector.open().score(frames, inbox)
        (probabilities,) = inbox.wait()
        assert net.calls == [[MAX_FRAMES_PER_CALL], [MAX_FRAMES_PER_CALL], [5]]
        np.testing.assert_allclose(probabilities, net.score(frames.reshape(-1)), atol=1e-6)


def test_a_closed_stream_is_forgotten_and_gets_nothing_more() -> None:
    net = GatedNet()
    with started(net) as detector:
        net.entered.acquire()
        closed, other = Inbox(), Inbox()
        stream = detector.open()
        stream.score(frames_of(noise(512)), closed)
        assert net.entered.acquire(timeout=WAIT_S)
        stream.score(frames_of(noise(512)), closed)
        stream.close()
        detector.open().score(frames_of(noise(512)), other)
        net.gate.release(2)
        other.wait()
        assert closed.deliveries == []
        with pytest.raises(DetectorError, match="closed"):
            stream.score(frames_of(noise(512)), closed)
        reference = weakref.ref(stream)
        del stream
        gc.collect()
        assert reference() is None


def test_a_failure_in_the_thread_reaches_whoever_asked_and_whoever_asks_later() -> None:
    told: list[Exception] = []
    heard = threading.Event()

    def listen(exc: Exception) -> None:
        told.append(exc)
        heard.set()

    with started(FailingNet(good_calls=1)) as detector:
        detector.on_failure(listen)
        stream = detector.open()
        stream.score(frames_of(noise(512)), Inbox())
        assert heard.wait(WAIT_S)
        assert [str(exc) for exc in told] == ["out of luck"]
        late: list[Exception] = []
        detector.on_failure(late.append)
        assert late == told
        with pytest.raises(DetectorError, match="stopped"):
            stream.score(frames_of(noise(512)), Inbox())


def test_a_failure_of_the_warm_up_is_raised_by_start() -> None:
    with pytest.raises(DetectorError, match="out of luck"):
        SileroVad(FailingNet(good_calls=0)).start()


def test_stop_ends_the_thread_and_refuses_what_comes_after(net: SileroNet) -> None:
    detector = SileroVad(net)
    detector.start()
    stream = detector.open()
    detector.stop()
    detector.stop()
    assert "vad" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(DetectorError, match="stopped"):
        stream.score(frames_of(noise(512)), Inbox())


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros(512, np.float32),
        np.zeros((1, 511), np.float32),
        np.zeros((0, 512), np.float32),
        np.zeros((1, 512), np.float64),
    ],
)
def test_frames_of_another_shape_or_type_are_refused(net: SileroNet, frames: Array) -> None:
    with pytest.raises(ValueError, match=r"VAD frames: got float\d\d .*accepted: float32"):
        SileroVad(net).open().score(frames, Inbox())


def test_the_detector_leaves_the_threads_of_others_as_they_were(net: SileroNet) -> None:
    before = torch.get_num_threads()
    born_later: list[int] = []
    torch.set_num_threads(3)
    try:
        with started(net):
            thread = threading.Thread(target=lambda: born_later.append(torch.get_num_threads()))
            thread.start()
            thread.join()
            assert [torch.get_num_threads(), *born_later] == [3, 3]
    finally:
        torch.set_num_threads(before)
    assert "silero_vad" not in sys.modules
