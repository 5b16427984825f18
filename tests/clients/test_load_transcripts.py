from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from clients.load_meter import HeardText
from clients.load_plan import Span
from clients.load_transcripts import Passage, invented_words, overlaps, passages, silent_s

FIRST = Span(0, 1.0, 4.0, whole=True)
SECOND = Span(1, 6.0, 8.0, whole=True)
CUT = Span(2, 10.0, 11.0, whole=False)


def test_every_clip_meets_the_finals_that_were_heard_of_it() -> None:
    heard = [HeardText(0.8, 2.0, "one"), HeardText(2.5, 4.3, "two"), HeardText(5.8, 8.2, "three")]
    assert passages([FIRST, SECOND], heard) == [Passage((0,), "one two"), Passage((1,), "three")]


def test_a_final_over_two_clips_makes_them_one_passage() -> None:
    heard = [HeardText(0.8, 6.5, "one two"), HeardText(6.6, 8.0, "three")]
    assert passages([FIRST, SECOND], heard) == [Passage((0, 1), "one two three")]


def test_a_clip_of_which_nothing_was_heard_is_a_passage_without_text() -> None:
    assert passages([FIRST, SECOND], [HeardText(6.0, 8.0, "three")]) == [
        Passage((0,), ""),
        Passage((1,), "three"),
    ]


def test_what_belongs_to_a_clip_that_was_cut_is_left_out() -> None:
    heard = [HeardText(0.8, 4.0, "one"), HeardText(7.0, 10.5, "three four")]
    assert passages([FIRST, SECOND, CUT], heard) == [Passage((0,), "one")]


def test_words_wholly_in_a_pause_are_invented_and_belong_to_no_clip() -> None:
    heard = [
        HeardText(0.8, 4.3, "one"),
        HeardText(4.5, 5.5, "thanks for watching"),
        HeardText(5.7, 8.0, "two"),
    ]
    assert invented_words([FIRST, SECOND], heard) == 3
    assert passages([FIRST, SECOND], heard) == [Passage((0,), "one"), Passage((1,), "two")]
    assert invented_words([], heard) == 5


def test_silence_is_what_no_clip_fills_of_the_audio_that_was_sent() -> None:
    assert silent_s([FIRST, SECOND], 10.0) == 5.0
    assert silent_s([FIRST, SECOND], 7.0) == 3.0
    assert silent_s([FIRST, SECOND], 2.0) == 1.0


times = st.lists(st.integers(0, 60), min_size=2, max_size=12, unique=True).map(sorted)


@given(times, times)
def test_a_final_is_heard_of_one_passage_or_invented(clips: list[int], finals: list[int]) -> None:
    spans = [
        Span(number, start, end, whole=True) for number, (start, end) in enumerate(pairwise(clips))
    ][::2]
    heard = [HeardText(start, end, f"w{start}") for start, end in pairwise(finals)][::2]
    found = passages(spans, heard)
    assert [clip for passage in found for clip in passage.clips] == [span.clip for span in spans]
    told = [word for passage in found for word in passage.heard.split()]
    assert told == [final.text for final in heard if overlaps(final, spans)]
    assert invented_words(spans, heard) == len(heard) - len(told)
    by_clip = {span.clip: span for span in spans}
    for passage in found:
        texts = passage.heard.split()
        inside = [final for final in heard if final.text in texts]
        for clip in passage.clips:
            alone = len(passage.clips) == 1
            assert alone or any(overlaps(final, [by_clip[clip]]) for final in inside)
