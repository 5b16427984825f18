from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from engine.audio.units import Samples
from engine.events import (
    EngineEvent,
    SegmentClosed,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
    Word,
)
from stream_server import protocol
from stream_server.errors import EngineFailureError
from stream_server.transcript import Transcript, TranscriptMessage
from tests.support.engine_events import closed, updated

ONE, TWO, THREE = (UtteranceId(n) for n in (1, 2, 3))


def transcript_of(*utterances: UtteranceId, word_timestamps: bool = False) -> Transcript:
    transcript = Transcript(word_timestamps=word_timestamps)
    for utterance_id in utterances:
        transcript.open(utterance_id)
    return transcript


def told(transcript: Transcript, *events: EngineEvent) -> list[TranscriptMessage]:
    return [message for event in events for message in transcript.receive(event)]


def brief(messages: Sequence[TranscriptMessage]) -> list[tuple[str, int, str]]:
    return [(type(m).__name__, m.segment, m.text) for m in messages]


def test_partials_are_numbered_within_their_segment_and_followed_by_its_final() -> None:
    messages = told(
        transcript_of(ONE),
        updated(1, "the quick"),
        updated(1, "the quick brown", "the quick"),
        closed(1, "the quick fox"),
        UtteranceFinished(ONE),
    )
    assert brief(messages) == [
        ("Partial", 0, "the quick"),
        ("Partial", 0, "the quick brown"),
        ("Final", 0, "the quick fox"),
    ]
    partials = [m for m in messages if isinstance(m, protocol.Partial)]
    assert [m.revision for m in partials] == [1, 2]


def test_times_are_told_in_seconds() -> None:
    partial, final = told(
        transcript_of(ONE), updated(1, "a", end=24_000), closed(1, "a", start=8000, end=32_000)
    )
    assert isinstance(partial, protocol.Partial)
    assert (partial.start, partial.end, partial.stable_end) == (0.0, 1.5, 0.75)
    assert (final.start, final.end) == (0.5, 2.0)


def test_segments_count_through_the_session() -> None:
    messages = told(
        transcript_of(ONE, TWO),
        closed(1, "a"),
        updated(1, "b", segment=1),
        closed(1, "b", segment=1),
        UtteranceFinished(ONE),
        closed(2, "c"),
        UtteranceFinished(TWO),
    )
    assert [(m.segment, m.text) for m in messages] == [(0, "a"), (1, "b"), (1, "b"), (2, "c")]


def test_a_segment_without_words_gets_neither_number_nor_message() -> None:
    transcript = transcript_of(ONE, TWO)
    messages = told(
        transcript,
        updated(1, ""),
        closed(1, ""),
        UtteranceFinished(ONE),
        closed(2, "words"),
        UtteranceFinished(TWO),
    )
    assert brief(messages) == [("Final", 0, "words")]
    assert transcript.num_segments == 1


def test_a_segment_that_had_a_partial_gets_its_final_even_without_words() -> None:
    messages = told(transcript_of(ONE), updated(1, "uh"), updated(1, ""), closed(1, ""))
    assert brief(messages) == [("Partial", 0, "uh"), ("Partial", 0, ""), ("Final", 0, "")]


def test_a_later_utterance_waits_for_the_earlier_one() -> None:
    transcript = transcript_of(ONE, TWO, THREE)
    assert told(transcript, updated(3, "c"), closed(3, "c"), UtteranceFinished(THREE)) == []
    assert told(transcript, updated(2, "b"), updated(2, "bb")) == []
    assert brief(told(transcript, updated(1, "a"), closed(1, "a"))) == [
        ("Partial", 0, "a"),
        ("Final", 0, "a"),
    ]
    assert brief(told(transcript, UtteranceFinished(ONE))) == [("Partial", 1, "bb")]
    assert not transcript.is_settled(THREE)
    assert brief(told(transcript, closed(2, "bbb"), UtteranceFinished(TWO))) == [
        ("Final", 1, "bbb"),
        ("Final", 2, "c"),
    ]
    assert transcript.is_settled(THREE)


def test_events_of_utterances_that_ended_are_ignored() -> None:
    transcript = transcript_of(ONE)
    told(transcript, closed(1, "a"), UtteranceFinished(ONE))
    assert told(transcript, updated(1, "late"), UtteranceFailed(ONE, "late")) == []


def test_words_are_told_where_they_were_asked_for() -> None:
    words = (Word("hi", Samples(1600), Samples(3200), 0.75),)
    without = told(transcript_of(ONE), closed(1, "hi", words=words))[0]
    with_words = told(transcript_of(ONE, word_timestamps=True), closed(1, "hi", words=words))[0]
    assert isinstance(without, protocol.Final)
    assert isinstance(with_words, protocol.Final)
    assert without.words is UNSET
    assert with_words.words == [protocol.Word(word="hi", start=0.1, end=0.2, confidence=0.75)]


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ((updated(1, "a b", "a"), updated(1, "b c", "b")), "stable text does not begin"),
        ((updated(1, "a b", "a b"), updated(1, "a b", "a")), "stable text does not begin"),
        ((updated(1, "b", "a"),), "a hypothesis does not begin"),
        ((updated(1, "a b", "a"), closed(1, "b")), "a final does not begin"),
        ((updated(1, "b", segment=1),), "segment 1 where 0 was due"),
        ((closed(1, "a"), closed(1, "a")), "segment 0 where 1 was due"),
        ((updated(1, "a"), UtteranceFinished(ONE)), "with segment 0 open"),
        ((UtteranceFailed(ONE, "out of memory"),), "could not decode this speech: out of memory"),
    ],
)
def test_an_engine_that_breaks_its_word_fails_the_session(
    events: tuple[EngineEvent, ...], complaint: str
) -> None:
    with pytest.raises(EngineFailureError, match=complaint):
        told(transcript_of(ONE), *events)


def utterance_events(utterance: int, segments: list[list[int]]) -> list[EngineEvent]:
    """Segments as growing counts of stable words; each hypothesis adds a tail of one."""
    events: list[EngineEvent] = []
    for number, growth in enumerate(segments):
        stable = 0
        for more in growth:
            stable += more
            words = [f"u{utterance}s{number}w{i}" for i in range(stable + 1)]
            events.append(updated(utterance, " ".join(words), " ".join(words[:-1]), segment=number))
        text = " ".join(f"u{utterance}s{number}w{i}" for i in range(stable + len(growth)))
        events.append(closed(utterance, text, segment=number))
    return [*events, UtteranceFinished(UtteranceId(utterance))]


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=3), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_any_interleaving_tells_ordered_segments_whose_stable_text_only_grows(
    utterances: list[list[list[int]]], random: Random
) -> None:
    queues = [utterance_events(n, segments) for n, segments in enumerate(utterances)]
    expected = [
        event.text
        for queue in queues
        for event in queue
        if isinstance(event, SegmentClosed) and event.text
    ]
    transcript = transcript_of(*(UtteranceId(n) for n in range(len(queues))))
    messages: list[TranscriptMessage] = []
    while any(queues):
        queue = random.choice([q for q in queues if q])
        messages += transcript.receive(queue.pop(0))

    assert [m.text for m in messages if isinstance(m, protocol.Final) and m.text] == expected
    assert [m.segment for m in messages] == sorted(m.segment for m in messages)
    stable: dict[int, str] = {}
    for message in messages:
        before = stable.get(message.segment, "")
        assert message.text.startswith(before)
        if isinstance(message, protocol.Partial):
            assert message.stable_text.startswith(before)
            stable[message.segment] = message.stable_text
    finals = [m.segment for m in messages if isinstance(m, protocol.Final)]
    assert finals == list(range(transcript.num_segments))
    assert transcript.is_settled(UtteranceId(len(queues) - 1))
