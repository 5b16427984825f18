import gc
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stream_server.endpointer import VAD_FRAME_SAMPLES, SpeechDetector
from stream_server.vad import (
    MAX_FRAMES_PER_CALL,
    DetectorError,
    SileroNet,
    SileroVad,
    VadState,
    packaged_model,
)
from tests.support.clips import TWO_SENTENCES, read_clip

WAIT_S = 20  # only reached where the thread under test hangs

Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def net() -> SileroNet:
    return SileroNet()


@pytest.fixture(scope="module")
def speech() -> Array:
    return read_clip(TWO_SENTENCES)


def noise(num_samples: int, seed: int = 0) -> Array:
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def frames_of(samples: Array) -> Array:
    return samples[: len(samples) // VAD_FRAME_SAMPLES * VAD_FRAME_SAMPLES].reshape(
        -1, VAD_FRAME_SAMPLES
    )


@pytest.fixture(scope="module")
def published() -> Callable[[Array], Array]:
    """The package's own model, fed frame by frame as its README does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit, in its own words
        model = torch.jit.load(str(packaged_model()))  # type: ignore[no-untyped-call]

    def score(samples: Array) -> Array:
        model.reset_states()
        frames = torch.from_numpy(frames_of(samples))
        with torch.inference_mode():
            return np.array([float(model(frame[None], 16_000)) for frame in frames], np.float32)

    return score


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


def test_the_network_equals_the_published_model_on_noise(
    net: SileroNet, published: Callable[[Array], Array]
) -> None:
    samples = noise(VAD_FRAME_SAMPLES * 60)
    np.testing.assert_allclose(net.score(samples), published(samples), atol=1e-5)


def test_the_network_equals_the_published_model_on_speech(
    net: SileroNet, published: Callable[[Array], Array], speech: Array
) -> None:
    samples = speech[: VAD_FRAME_SAMPLES * 92]  # the first sentence, and the pause after it
    expected = published(samples)
    assert expected.max() > 0.99
    assert expected[-1] < 0.35
    np.testing.assert_allclose(net.score(samples), expected, atol=1e-5)


def test_a_stream_is_scored_alike_alone_and_beside_others(net: SileroNet, speech: Array) -> None:
    recordings = [
        frames_of(recording)
        for recording in (noise(512 * 3), speech[:40_000], noise(512, 1), speech, noise(80_000, 2))
    ]
    _, together = net.advance([VadState()] * len(recordings), recordings)
    for recording, beside_others in zip(recordings, together, strict=True):
        np.testing.assert_allclose(beside_others, net.score(recording.reshape(-1)), atol=1e-6)


def test_any_division_of_a_stream_into_calls_gives_the_same(net: SileroNet, speech: Array) -> None:
    frames = frames_of(speech)
    state, scores = VadState(), []
    for part in np.split(frames, [1, 2, 9, 40, 41]):
        (state,), (probabilities,) = net.advance([state], [part])
        scores.append(probabilities)
    np.testing.assert_allclose(np.concatenate(scores), net.score(speech)[: len(frames)], atol=1e-6)


def test_a_long_recording_is_scored_in_blocks_that_leave_no_seam(net: SileroNet) -> None:
    frames = frames_of(noise(512 * 1100))
    _, (at_once,) = net.advance([VadState()], [frames])
    np.testing.assert_allclose(net.score(frames.reshape(-1)), at_once, atol=1e-6)


def test_the_last_frame_of_a_recording_is_completed_with_silence(net: SileroNet) -> None:
    samples = noise(512 * 4 + 100)
    padded = np.concatenate([samples, np.zeros(412, np.float32)])
    np.testing.assert_array_equal(net.score(samples), net.score(padded))
    assert len(net.score(samples)) == 5
    assert len(net.score(samples[:0])) == 0


def test_speech_scores_high_and_the_pause_between_sentences_low(
    net: SileroNet, speech: Array
) -> None:
    heard = (net.score(speech) > 0.5).astype(int)
    assert int((np.diff(heard) == 1).sum()) == 2


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "not_a_model.jit"
    path.write_bytes(b"no archive")
    with pytest.raises(DetectorError, match=r"not_a_model\.jit: not the 16 kHz Silero network"):
        SileroNet(path)


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
