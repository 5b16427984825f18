import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.load_meter import METRICS, HeardText, SessionMeter, changed_words
from stream_server.protocol import (
    Ack,
    Done,
    ErrorMessage,
    Final,
    Partial,
    SpeechStarted,
    SpeechStopped,
    WarningMessage,
)


def partial(end: float, text: str, stable: str = "", segment: int = 0) -> Partial:
    return Partial(
        segment=segment,
        revision=1,
        start=0.0,
        end=end,
        text=text,
        stable_text=stable,
        stable_end=0.0,
        language="en",
    )


def final(start: float, end: float, text: str, segment: int = 0) -> Final:
    return Final(
        segment=segment,
        start=start,
        end=end,
        text=text,
        language="en",
        language_probability=1.0,
        confidence=1.0,
        no_speech_prob=0.0,
    )


def meter_of(seconds: int, speed: float = 1.0) -> SessionMeter:
    """Audio in chunks of 100 ms, each due when it was complete, by a clock that began at 10."""
    meter = SessionMeter(7, endpoint_silence_s=0.5, speed=speed)
    for k in range(1, 10 * seconds + 1):
        meter.sent(k / 10, 10 + k / 10 / speed)
    return meter


def values(meter: SessionMeter, metric: str) -> list[float]:
    return [round(value, 6) for _, value in meter.record.samples[metric]]


def test_the_time_to_ready_and_from_stop_to_done_is_measured() -> None:
    meter = meter_of(0)
    meter.connected(9.8, 10.0)
    meter.stopped(20.0)
    meter.received(Done(audio_s=10.0, segments=0), 20.25)
    assert values(meter, "connect_s") == [0.2]
    assert values(meter, "stop_to_done_s") == [0.25]
    assert meter.record.outcome == "done"


def test_an_utterance_is_measured_from_its_first_speech_to_its_final() -> None:
    meter = meter_of(3)
    meter.received(SpeechStarted(at=0.5), 10.6)
    meter.received(partial(0.9, "one"), 11.1)
    meter.received(partial(1.4, "one two"), 11.7)
    meter.received(SpeechStopped(at=2.0), 12.5)
    meter.received(final(0.2, 2.0, "one two three"), 12.6)
    assert values(meter, "first_partial_s") == [0.6]
    assert values(meter, "partial_gap_s") == [0.6]
    assert values(meter, "final_s") == [0.6]
    assert values(meter, "final_beyond_endpoint_s") == [0.1]
    assert meter.record.speech_s == 1.5
    assert meter.record.heard == [HeardText(0.2, 2.0, "one two three")]


def test_a_partial_ages_until_the_next_one_comes_or_speech_ends() -> None:
    meter = meter_of(3)
    meter.received(SpeechStarted(at=0.5), 10.6)
    meter.received(partial(0.9, "one"), 11.1)  # nothing was shown of what was sent at 10.5
    meter.received(partial(1.4, "one two"), 11.7)  # the newest word was sent at 10.9
    meter.received(SpeechStopped(at=2.0), 12.5)  # at 12.0, the newest was sent at 11.4
    assert values(meter, "partial_age_s") == [0.6, 0.8, 0.6]
    assert [round(now, 6) for now, _ in meter.record.samples["partial_age_s"]] == [11.1, 11.7, 12.0]


def test_a_partial_does_not_age_any_more_once_nobody_speaks() -> None:
    meter = meter_of(3)
    meter.received(SpeechStarted(at=0.5), 10.6)
    meter.received(partial(1.0, "one"), 14.0)
    meter.received(partial(1.0, "one"), 14.5)
    meter.received(SpeechStopped(at=2.0), 15.0)
    assert values(meter, "partial_age_s") == [1.5]
    meter.received(partial(2.0, "one two"), 19.0)
    assert values(meter, "partial_age_s") == [1.5]


def test_speech_that_is_never_shown_ages_as_a_whole() -> None:
    meter = meter_of(3)
    meter.received(SpeechStarted(at=0.5), 10.6)
    meter.received(SpeechStopped(at=2.0), 12.5)
    assert values(meter, "partial_age_s") == [1.5]
    assert values(meter, "first_partial_s") == []


def test_speech_that_a_failure_cuts_off_ages_until_the_last_audio() -> None:
    meter = meter_of(3)
    meter.received(SpeechStarted(at=0.5), 10.6)
    meter.failed("engine_failure", "out of memory")
    meter.failed("engine_failure", "out of memory")
    assert values(meter, "partial_age_s") == [2.5]
    record = meter.record
    assert (record.outcome, record.failure) == ("failed", "engine_failure")
    assert record.sentence == "out of memory"


def test_partials_of_two_utterances_are_told_apart_by_where_they_end() -> None:
    meter = meter_of(6)
    meter.received(SpeechStarted(at=0.5), 10.6)
    meter.received(SpeechStopped(at=2.0), 12.5)
    meter.received(SpeechStarted(at=3.0), 13.1)
    meter.received(partial(1.9, "one"), 13.2)
    meter.received(final(0.2, 2.0, "one"), 13.3)
    meter.received(partial(3.9, "two", segment=1), 14.2)
    assert values(meter, "first_partial_s") == [2.7, 1.2]


def test_the_lag_of_a_partial_is_the_audio_sent_beyond_its_end() -> None:
    meter = meter_of(3)
    meter.received(partial(2.25, "one"), 13.0)
    assert values(meter, "partial_lag_s") == [0.75]


def test_speech_that_stop_cuts_off_is_not_timed_as_ended_by_silence() -> None:
    meter = meter_of(3)
    meter.received(SpeechStarted(at=0.5), 10.6)
    meter.stopped(13.0)
    meter.received(SpeechStopped(at=2.8), 13.01)
    meter.received(final(0.2, 2.8, "one"), 13.1)
    assert values(meter, "final_s") == []
    assert meter.record.heard == [HeardText(0.2, 2.8, "one")]


def test_the_endpoint_silence_passes_faster_where_audio_does() -> None:
    meter = meter_of(3, speed=4.0)
    meter.received(SpeechStopped(at=2.0), 10.65)
    meter.received(final(0.2, 2.0, "one"), 10.7)
    assert values(meter, "final_s") == [0.2]
    assert values(meter, "final_beyond_endpoint_s") == [0.075]


@pytest.mark.parametrize(
    "messages",
    [
        [partial(1, "one two", "one two"), partial(1, "one too", "one")],
        [partial(1, "one two", "one two"), partial(1, "one too", "one too")],
        [partial(1, "one two", "one too")],
        [partial(1, "one two", "one"), final(0, 1, "two")],
        [final(0, 1, "one"), final(0, 1, "one")],
        [final(0, 1, "one"), partial(1, "one")],
    ],
)
def test_stable_text_that_changes_is_a_retraction(messages: list[Partial | Final]) -> None:
    meter = meter_of(3)
    for message in messages:
        meter.received(message, 11.0)
    assert meter.record.retractions == 1


def test_stable_text_that_grows_is_none() -> None:
    meter = meter_of(3)
    for message in (
        partial(1, "one"),
        partial(1, "one two", "one"),
        partial(1, "one two", "one two"),
        final(0, 1, "one two three"),
        partial(2, "four", segment=1),
        final(1, 2, "five", segment=1),
    ):
        meter.received(message, 11.0)
    assert meter.record.retractions == 0
    assert (meter.record.partials, meter.record.partial_words) == (4, 6)
    assert meter.record.changed_words == 1


def test_partials_of_different_segments_are_not_held_to_each_other() -> None:
    meter = meter_of(3)
    meter.received(partial(1, "one two", "one two"), 11.0)
    meter.received(partial(2, "three", "three", segment=1), 11.5)
    assert values(meter, "partial_gap_s") == []
    assert meter.record.retractions == 0


def test_warnings_are_counted_and_the_slowest_interval_is_kept() -> None:
    meter = meter_of(1)
    for interval_ms in (800, 1600, 400):
        warning = WarningMessage(code="lagging", message="", interim_interval_ms=interval_ms)
        meter.received(warning, 11.0)
    meter.received(ErrorMessage(code="unsupported", message="", fatal=False), 11.0)
    meter.received(Ack(samples_received=16_000), 11.0)
    assert meter.record.warnings == {"lagging": 3, "unsupported": 1}
    assert meter.record.slowest_interval_ms == 1600


def test_finals_that_done_counts_and_nobody_saw_are_missing() -> None:
    meter = meter_of(1)
    meter.received(final(0, 1, "one"), 11.0)
    meter.received(Done(audio_s=1.0, segments=3), 11.1)
    assert meter.record.missing_finals == 2


def test_a_refusal_is_recorded_with_what_it_asks_for() -> None:
    meter = SessionMeter(7, endpoint_silence_s=0.5)
    meter.refused(503, 4)
    record = meter.record
    assert (record.number, record.outcome, record.failure) == (7, "refused", "HTTP 503")
    assert record.retry_after_s == 4
    assert set(record.samples) == set(METRICS)


words = st.lists(st.sampled_from("ab"), max_size=5)


@given(st.lists(words, max_size=5), words)
def test_a_word_has_changed_where_any_later_text_differs_up_to_it(
    revisions: list[list[str]], last: list[str]
) -> None:
    texts = [*revisions, last]
    expected = sum(
        any(later[: place + 1] != text[: place + 1] for later in texts[number + 1 :])
        for number, text in enumerate(revisions)
        for place in range(len(text))
    )
    assert changed_words(revisions, last) == expected
