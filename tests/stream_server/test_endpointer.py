from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audio.units import Samples, samples_from_ms
from stream_server.endpointer import (
    PAUSE_SILENCE,
    VAD_FRAME_SAMPLES,
    Endpointer,
    SpeechEvent,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
)

HALF_SECOND = samples_from_ms(500)


def frames(count: int) -> Samples:
    return Samples(count * VAD_FRAME_SAMPLES)


def follow(
    scores: Sequence[float], threshold: float = 0.5, endpoint_silence: Samples = HALF_SECOND
) -> list[SpeechEvent]:
    endpointer = Endpointer(threshold, endpoint_silence)
    return [event for score in scores for event in endpointer.receive(score)]


def test_speech_starts_at_the_first_of_two_loud_frames() -> None:
    assert follow([0, 0, 0.9, 0.9, 0.9]) == [SpeechStarted(frames(2))]


def test_a_click_is_not_speech() -> None:
    assert follow([0, 1, 0, 0, 1, 0.4, 1, 0]) == []


def test_a_score_at_the_threshold_is_speech() -> None:
    assert follow([0.5, 0.5]) == [SpeechStarted(Samples(0))]


def test_speech_stops_once_the_endpoint_silence_has_passed() -> None:
    events = follow([1] * 10 + [0] * 16)
    assert events == [
        SpeechStarted(Samples(0)),
        SpeechPaused(frames(10)),
        SpeechStopped(frames(10)),
    ]
    assert follow([1] * 10 + [0] * 15)[-1] == SpeechPaused(frames(10))


def test_the_pause_is_declared_once_its_silence_has_passed() -> None:
    needed = -(-PAUSE_SILENCE // VAD_FRAME_SAMPLES)
    assert SpeechPaused(frames(2)) not in follow([1, 1] + [0] * (needed - 1))
    assert SpeechPaused(frames(2)) in follow([1, 1] + [0] * needed)


def test_speech_after_a_pause_resumes_where_it_is_heard() -> None:
    events = follow([1] * 4 + [0] * 8 + [1] * 2 + [0] * 16)
    assert events == [
        SpeechStarted(Samples(0)),
        SpeechPaused(frames(4)),
        SpeechResumed(frames(12)),
        SpeechPaused(frames(14)),
        SpeechStopped(frames(14)),
    ]


def test_a_short_silence_inside_speech_says_nothing() -> None:
    assert follow([1] * 4 + [0] * 6 + [1] * 4) == [SpeechStarted(Samples(0))]


def test_a_middling_score_is_what_the_frame_before_it_was() -> None:
    went_on = follow([1, 1] + [0.4] * 40)
    assert went_on == [SpeechStarted(Samples(0))]
    stayed_silent = follow([1, 1, 0] + [0.4] * 40)
    assert stayed_silent[-1] == SpeechStopped(frames(2))
    never_started = follow([0.4] * 40)
    assert never_started == []


def test_an_endpoint_shorter_than_a_pause_brings_both_at_once() -> None:
    endpointer = Endpointer(0.5, samples_from_ms(100))
    assert endpointer.pause_silence == samples_from_ms(100)
    events = follow([1, 1, 0, 0, 0, 0], endpoint_silence=samples_from_ms(100))
    assert events[1:] == [SpeechPaused(frames(2)), SpeechStopped(frames(2))]


def test_a_threshold_of_zero_hears_speech_everywhere() -> None:
    assert follow([0.0] * 100, threshold=0) == [SpeechStarted(Samples(0))]


def test_a_low_threshold_still_allows_an_end() -> None:
    assert isinstance(follow([0.2] * 4 + [0.001] * 16, threshold=0.1)[-1], SpeechStopped)


def test_after_a_reset_speech_must_start_again() -> None:
    endpointer = Endpointer(0.5, HALF_SECOND)
    for score in (1, 1, 1):
        endpointer.receive(score)
    endpointer.reset()
    assert endpointer.receive(1) == []
    assert endpointer.receive(1) == [SpeechStarted(frames(3))]


LEGAL: dict[type[SpeechEvent], set[type[SpeechEvent]]] = {
    SpeechStarted: {SpeechPaused},
    SpeechPaused: {SpeechResumed, SpeechStopped},
    SpeechResumed: {SpeechPaused},
    SpeechStopped: {SpeechStarted},
}


@settings(deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]), st.integers(1, 30)), max_size=30
    ),
    st.sampled_from([100, 200, 500, 2000]),
)
def test_events_follow_each_other_lawfully_and_in_time(
    runs: list[tuple[float, int]], endpoint_ms: int
) -> None:
    scores = [score for score, length in runs for _ in range(length)]
    events = follow(scores, endpoint_silence=samples_from_ms(endpoint_ms))
    assert all(isinstance(event, SpeechStarted) for event in events[:1])
    for before, after in pairwise(events):
        assert type(after) in LEGAL[type(before)]
        assert after.at >= before.at
    assert all(event.at % VAD_FRAME_SAMPLES == 0 for event in events)


@pytest.mark.parametrize("endpoint_ms", [100, 500])
def test_the_position_counts_every_frame(endpoint_ms: int) -> None:
    endpointer = Endpointer(0.5, samples_from_ms(endpoint_ms))
    for _ in range(7):
        endpointer.receive(1)
    assert endpointer.position == frames(7)
    assert endpointer.speech_end == frames(7)
