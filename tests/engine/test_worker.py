"""The engine in its thread, with the embedded model: who hears what, and how it ends."""

import os
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from engine.audio.units import SAMPLE_RATE, Samples
from engine.config import EngineConfig
from engine.errors import CheckpointError, EngineStoppedError
from engine.events import (
    AppendAudio,
    CancelUtterance,
    EngineEvent,
    FinishUtterance,
    HypothesisUpdated,
    OpenUtterance,
    SegmentClosed,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
    UtteranceOptions,
)
from engine.runtime.pending import StepRunner
from engine.worker import Worker
from tests.support.clips import TWO_SENTENCES, read_clip
from tests.support.engines import Audio
from tests.support.workers import EMBEDDED_CONFIG, Listener, running, worker_with
from tests.support.wrapped_runners import FailingRunner, GatedRunner, SenselessRunner

FINALS_ONLY = UtteranceOptions(interim_results=False)
FIRST, SECOND = "It's a beautiful day for a long walk.", "The next train leaves in ten minutes."


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with running(Worker(EMBEDDED_CONFIG)) as started:
        yield started


@pytest.fixture(scope="module")
def sentences() -> tuple[Audio, Audio]:
    clip = read_clip(TWO_SENTENCES)
    loud = np.abs(clip) > 0.01
    quiet_hops = [at for at in range(0, len(clip) - 1600, 160) if not loud[at : at + 1600].any()]
    middle = min(quiet_hops, key=lambda at: abs(at - len(clip) / 2)) + 800
    return clip[:middle], clip[middle:]


def open_utterance(
    worker: Worker,
    listener: Listener,
    audio: Audio,
    options: UtteranceOptions = FINALS_ONLY,
) -> UtteranceId:
    utterance_id = worker.new_utterance_id()
    worker.open(OpenUtterance(utterance_id, Samples(0), options), listener)
    worker.submit(AppendAudio(utterance_id, audio))
    return utterance_id


def say(worker: Worker, audio: Audio) -> Listener:
    """A whole utterance; the listener has not waited yet."""
    listener = Listener()
    worker.submit(FinishUtterance(open_utterance(worker, listener, audio)))
    return listener


def test_the_loaded_model_is_known_once_it_has_started(worker: Worker) -> None:
    assert worker.info.name == "embedded"
    assert worker.metrics.failures == 0


def test_each_listener_hears_its_own_utterance_and_no_other(
    worker: Worker, sentences: tuple[Audio, Audio]
) -> None:
    first, second = Listener(), Listener()
    ids = [
        open_utterance(worker, listener, audio, UtteranceOptions())
        for listener, audio in zip((first, second), sentences, strict=True)
    ]
    for utterance_id in ids:
        worker.submit(FinishUtterance(utterance_id))
    assert first.wait() == UtteranceFinished(ids[0])
    assert second.wait() == UtteranceFinished(ids[1])
    assert (first.text, second.text) == (FIRST, SECOND)
    for listener, utterance_id in zip((first, second), ids, strict=True):
        assert {event.utterance_id for event in listener.heard()} == {utterance_id}


def test_partials_come_while_the_utterance_is_open(
    worker: Worker, sentences: tuple[Audio, Audio]
) -> None:
    told = threading.Event()

    def hear(event: EngineEvent) -> None:
        if isinstance(event, HypothesisUpdated) and event.text:
            told.set()

    utterance_id = worker.new_utterance_id()
    worker.open(OpenUtterance(utterance_id, Samples(0), UtteranceOptions()), hear)
    worker.submit(AppendAudio(utterance_id, sentences[0]))
    told.wait()
    worker.submit(CancelUtterance(utterance_id))


def test_callers_on_several_threads_are_served_alike(
    worker: Worker, sentences: tuple[Audio, Audio]
) -> None:
    listeners: list[Listener] = []

    def call() -> None:
        listener = say(worker, sentences[1])
        listener.wait()
        listeners.append(listener)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [listener.text for listener in listeners] == [SECOND] * 4
    assert len({listener.events[-1].utterance_id for listener in listeners}) == 4


def test_after_a_cancel_nothing_more_is_heard(sentences: tuple[Audio, Audio]) -> None:
    """The cancel arrives while the utterance's own step is running."""
    gates: list[GatedRunner] = []

    def gated(runner: StepRunner) -> GatedRunner:
        gates.append(GatedRunner(runner))
        return gates[0]

    with running(worker_with(gated)) as worker:
        cancelled = Listener()
        utterance_id = open_utterance(worker, cancelled, sentences[0])
        worker.submit(FinishUtterance(utterance_id))
        gates[0].begun.wait()
        worker.submit(CancelUtterance(utterance_id))
        other = say(worker, sentences[1])
        gates[0].gate.set()
        assert isinstance(other.wait(), UtteranceFinished)
        assert cancelled.heard() == []
        assert other.text == SECOND


def test_a_listener_that_cancels_hears_nothing_more_of_what_was_decided_already(
    worker: Worker, sentences: tuple[Audio, Audio]
) -> None:
    """The final and the end of the utterance are one result; between them comes the cancel."""
    heard, cancelled = list[EngineEvent](), threading.Event()

    def hear(event: EngineEvent) -> None:
        heard.append(event)
        worker.submit(CancelUtterance(event.utterance_id))
        cancelled.set()

    utterance_id = worker.new_utterance_id()
    worker.open(OpenUtterance(utterance_id, Samples(0), FINALS_ONLY), hear)
    worker.submit(AppendAudio(utterance_id, sentences[0]))
    worker.submit(FinishUtterance(utterance_id))
    cancelled.wait()
    say(worker, sentences[1]).wait()
    assert [type(event) for event in heard] == [SegmentClosed]


def test_commands_for_an_utterance_that_has_ended_are_late_and_not_wrong(
    worker: Worker, sentences: tuple[Audio, Audio]
) -> None:
    listener = say(worker, sentences[0])
    ended = listener.wait().utterance_id
    worker.submit(AppendAudio(ended, sentences[0]))
    worker.submit(FinishUtterance(ended))
    worker.submit(CancelUtterance(ended))
    say(worker, sentences[1]).wait()
    assert isinstance(listener.heard()[-1], UtteranceFinished)


def test_a_step_that_raises_ends_its_own_utterance_alone(
    sentences: tuple[Audio, Audio], caplog: pytest.LogCaptureFixture
) -> None:
    failures = {1: RuntimeError("lost the device")}
    with running(worker_with(lambda runner: FailingRunner(runner, failures))) as worker:
        broken = say(worker, sentences[0])
        ended = broken.wait()
        assert ended == UtteranceFailed(ended.utterance_id, "RuntimeError: lost the device")
        assert broken.text == ""
        whole = say(worker, sentences[1])
        assert isinstance(whole.wait(), UtteranceFinished)
        assert whole.text == SECOND
        assert worker.metrics.failures == 1
    assert "EncodeStep of 1 rows failed" in caplog.text


def test_a_failure_of_the_engine_itself_is_told_to_everybody(
    sentences: tuple[Audio, Audio], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Exception] = []
    with running(worker_with(lambda _: SenselessRunner())) as worker:
        worker.on_failure(told.append)
        idle = Listener()
        open_utterance(worker, idle, sentences[0][:100])
        broken = say(worker, sentences[0])
        for listener in (broken, idle):
            ended = listener.wait()
            assert isinstance(ended, UtteranceFailed)
            assert ended.message == "the engine failed: AssertionError: token 0 is no language"
        assert [str(failure) for failure in told] == ["token 0 is no language"]
        with pytest.raises(EngineStoppedError):
            say(worker, sentences[0])
        late: list[Exception] = []
        worker.on_failure(late.append)
        assert late == told
    assert "the engine failed" in caplog.text


def test_one_utterance_opened_twice_is_a_failure_of_the_caller_that_is_not_hidden(
    sentences: tuple[Audio, Audio], caplog: pytest.LogCaptureFixture
) -> None:
    told = Listener()
    failed = threading.Event()
    with running(worker_with(lambda runner: runner)) as worker:
        worker.on_failure(lambda _: failed.set())
        utterance_id = open_utterance(worker, told, sentences[0])
        worker.open(OpenUtterance(utterance_id, Samples(0), FINALS_ONLY), told)
        failed.wait()
        assert isinstance(told.wait(), UtteranceFailed)
    assert f"utterance {utterance_id} is open already" in caplog.text


def test_a_checkpoint_that_is_not_there_is_told_where_the_engine_is_started() -> None:
    worker = Worker(EngineConfig(model="/no/such/whisper", device="cpu"))
    with pytest.raises(CheckpointError, match="/no/such/whisper"):
        worker.start()
    with pytest.raises(EngineStoppedError):
        worker.submit(FinishUtterance(UtteranceId(1)))
    late: list[Exception] = []
    worker.on_failure(late.append)
    assert isinstance(late[0], CheckpointError)
    worker.stop()


def test_nothing_can_be_asked_before_the_start() -> None:
    worker = Worker(EMBEDDED_CONFIG)
    with pytest.raises(EngineStoppedError, match="has not been started"):
        _ = worker.info
    with pytest.raises(EngineStoppedError, match="has not been started"):
        _ = worker.metrics
    with pytest.raises(EngineStoppedError, match="is not running"):
        worker.open(OpenUtterance(UtteranceId(1), Samples(0), FINALS_ONLY), Listener())
    worker.stop()


def test_nothing_can_be_submitted_after_the_end(sentences: tuple[Audio, Audio]) -> None:
    """What is unfinished then stays so."""
    unfinished = Listener()
    with running(worker_with(lambda runner: runner)) as worker:
        utterance_id = open_utterance(worker, unfinished, sentences[0])
    assert unfinished.heard() == []
    for command in (
        AppendAudio(utterance_id, np.zeros(SAMPLE_RATE, np.float32)),
        FinishUtterance(utterance_id),
        CancelUtterance(utterance_id),
    ):
        with pytest.raises(EngineStoppedError, match="is not running"):
            worker.submit(command)
    with pytest.raises(EngineStoppedError, match="is not running"):
        open_utterance(worker, unfinished, sentences[0])
    worker.stop()


def test_a_listener_may_end_the_engine(sentences: tuple[Audio, Audio]) -> None:
    stopped = threading.Event()
    worker = worker_with(lambda runner: runner)

    def stop(event: EngineEvent) -> None:
        worker.stop()
        stopped.set()

    worker.start()
    utterance_id = worker.new_utterance_id()
    worker.open(OpenUtterance(utterance_id, Samples(0), FINALS_ONLY), stop)
    worker.submit(FinishUtterance(utterance_id))
    stopped.wait()
    worker.stop()
    with pytest.raises(EngineStoppedError):
        worker.submit(FinishUtterance(utterance_id))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is not a thread's own")
def test_the_engine_thread_yields_to_sockets_and_detector(worker: Worker) -> None:
    (engine,) = (thread for thread in threading.enumerate() if thread.name == "starling-engine")
    assert engine.native_id is not None
    assert os.getpriority(os.PRIO_PROCESS, engine.native_id) > os.getpriority(os.PRIO_PROCESS, 0)
