"""A whole recording through the embedded model: what comes out, in which order, and when not."""

from collections.abc import Iterator

import numpy as np
import pytest

from engine.audio.units import SAMPLE_RATE, Samples
from engine.errors import StepError
from engine.events import SegmentClosed, UtteranceOptions
from engine.offline import Region, transcribe
from engine.worker import Worker
from tests.support.clips import TWO_SENTENCES, read_clip
from tests.support.engines import Audio
from tests.support.workers import EMBEDDED_CONFIG, running, worker_with
from tests.support.wrapped_runners import FailingRunner, SenselessRunner

OPTIONS = UtteranceOptions(interim_results=False, append_only=False)
BOTH = "It's a beautiful day for a long walk. The next train leaves in ten minutes."


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with running(Worker(EMBEDDED_CONFIG)) as started:
        yield started


@pytest.fixture(scope="module")
def clip() -> Audio:
    return read_clip(TWO_SENTENCES)


def region(start: float, end: float) -> Region:
    return Samples(round(start * SAMPLE_RATE)), Samples(round(end * SAMPLE_RATE))


def test_without_regions_all_of_it_is_one_utterance(worker: Worker, clip: Audio) -> None:
    (segment,) = transcribe(worker, clip, OPTIONS)
    assert segment.text == BOTH
    assert (segment.start, segment.end) == (0, len(clip))


def test_segments_come_in_the_order_of_the_recording_whatever_is_done_first(
    worker: Worker, clip: Audio
) -> None:
    """The stretches of silence are short: they end before the speech that precedes them."""
    silence = np.zeros(SAMPLE_RATE, np.float32)
    recording = np.concatenate([clip, silence, clip, silence])
    length = len(clip) / SAMPLE_RATE
    regions = [
        region(0, length),
        region(length, length + 1),
        region(length + 1, 2 * length + 1),
        region(2 * length + 1.5, 2 * length + 2),
    ]
    segments = list(transcribe(worker, recording, OPTIONS, regions))
    assert [segment.text for segment in segments] == [BOTH, "", BOTH, ""]
    assert [(segment.start, segment.end) for segment in segments] == regions


def test_speech_that_is_longer_than_a_segment_gives_several_in_order(
    worker: Worker, clip: Audio
) -> None:
    options = UtteranceOptions(
        interim_results=False, append_only=False, max_segment=Samples(4 * SAMPLE_RATE)
    )
    start = Samples(3 * SAMPLE_RATE)
    recording = np.concatenate([np.zeros(start, np.float32), clip])
    segments = list(transcribe(worker, recording, options, [(start, Samples(len(recording)))]))
    assert len(segments) > 1
    assert [segment.segment for segment in segments] == list(range(len(segments)))
    ends = [start, *(segment.end for segment in segments)]
    assert [segment.start for segment in segments] == ends[:-1]
    assert ends[-1] == len(recording)
    assert " ".join(segment.text for segment in segments if segment.text) == BOTH


def test_no_audio_and_no_regions_are_no_segments(worker: Worker, clip: Audio) -> None:
    assert list(transcribe(worker, clip[:0], OPTIONS)) == []
    assert list(transcribe(worker, clip, OPTIONS, [])) == []
    assert list(transcribe(worker, clip, OPTIONS, [region(1, 1)])) == []


def test_recordings_transcribed_at_once_do_not_mix(worker: Worker, clip: Audio) -> None:
    def segments(audio: Audio) -> Iterator[SegmentClosed]:
        return transcribe(worker, audio, OPTIONS)

    silent, spoken = segments(np.zeros(SAMPLE_RATE, np.float32)), segments(clip)
    texts = [segment.text for pair in zip(silent, spoken, strict=True) for segment in pair]
    assert texts == ["", BOTH]


def test_an_utterance_that_cannot_be_decoded_is_an_error(clip: Audio) -> None:
    failures = {1: RuntimeError("lost the device")}
    with (
        running(worker_with(lambda runner: FailingRunner(runner, failures))) as worker,
        pytest.raises(StepError, match=r"^RuntimeError: lost the device$"),
    ):
        list(transcribe(worker, clip, OPTIONS))


def test_an_engine_that_fails_is_an_error_and_not_a_wait_without_end(clip: Audio) -> None:
    with (
        running(worker_with(lambda _: SenselessRunner())) as worker,
        pytest.raises(StepError, match=r"^the engine failed: "),
    ):
        list(transcribe(worker, clip, OPTIONS))
