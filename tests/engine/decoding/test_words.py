import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import SAMPLES_PER_POSITION, Samples
from engine.decoding.hypothesis import HypothesisWord, Token
from engine.decoding.words import merge_punctuation, time_words


def split(*texts: str) -> list[HypothesisWord]:
    return [HypothesisWord(text, (Token(index, 0.0, 0),)) for index, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("pieces", "merged"),
    [
        ([" Hello", ",", " world", "."], [" Hello,", " world."]),
        ([" Well", ".", ".", "."], [" Well..."]),
        ([' "', "Yes", '"', ",", " he", " said"], [' "Yes",', " he", " said"]),
        ([" (", "aside", ")"], [" (aside)"]),
        ([" ¿", "Qué", "?"], [" ¿Qué?"]),
        (["今日", "。"], ["今日。"]),
        ([".", " a"], [".", " a"]),
        ([" a", ' "'], [" a", ' "']),
        ([" a-b"], [" a-b"]),
        ([], []),
    ],
)
def test_punctuation_joins_the_word_it_belongs_to(pieces: list[str], merged: list[str]) -> None:
    assert [word.text for word in merge_punctuation(split(*pieces))] == merged


@given(st.lists(st.sampled_from([" a", "b", ",", ".", '"', ' "', " (", ")", " -", "", " "])))
def test_no_token_and_no_letter_is_lost_by_merging(pieces: list[str]) -> None:
    words = split(*pieces)
    merged = merge_punctuation(words)
    assert "".join(word.text for word in merged) == "".join(pieces)
    assert [token for word in merged for token in word.tokens] == [
        token for word in words for token in word.tokens
    ]


@given(st.lists(st.sampled_from([" a", "b", ",", '"', ' "', " (", ")"])), st.integers(0, 20))
def test_the_words_of_a_beginning_lie_within_as_many_words_of_the_whole(
    pieces: list[str], count: int
) -> None:
    """So counting the merged stable words is enough to keep them on their side of a cut."""
    words = split(*pieces)
    beginning = merge_punctuation(words[:count])
    holding = merge_punctuation(words)[: len(beginning)]
    assert sum(len(word.tokens) for word in holding) >= len(words[:count])


def test_words_begin_where_their_first_token_does_and_end_at_the_next() -> None:
    tokens = [Token(index, 0.0, 0) for index in range(3)]
    words = [HypothesisWord(" ab", tuple(tokens[:2])), HypothesisWord(" c", (tokens[2],))]
    times = time_words(words, [1, 4, 6, 9], Samples(10_000))
    assert [(time.start, time.end) for time in times] == [
        (1 * SAMPLES_PER_POSITION, 6 * SAMPLES_PER_POSITION),
        (6 * SAMPLES_PER_POSITION, 9 * SAMPLES_PER_POSITION),
    ]


def test_words_never_reach_beyond_the_window() -> None:
    (time,) = time_words(split(" a"), [2, 9], Samples(5 * SAMPLES_PER_POSITION))
    assert (time.start, time.end) == (2 * SAMPLES_PER_POSITION, 5 * SAMPLES_PER_POSITION)
