from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import SAMPLES_PER_POSITION, Samples
from engine.decoding.hypothesis import Hypothesis, HypothesisWord, Token, attach, end_of


def word(text: str, *positions: int) -> HypothesisWord:
    return HypothesisWord(text, tuple(Token(at, -0.1, at) for at in positions))


def test_the_average_counts_the_end_of_text() -> None:
    tokens = (Token(1, -1.0, 0), Token(2, -2.0, 0))
    hypothesis = Hypothesis(tokens, Samples(0), eot_logprob=-3.0)
    assert hypothesis.avg_logprob == pytest.approx(-2.0)
    assert hypothesis.ids == (1, 2)


def test_a_hypothesis_without_tokens_is_as_sure_as_its_end_of_text() -> None:
    assert Hypothesis((), Samples(0), eot_logprob=-0.5).avg_logprob == -0.5


def test_a_words_confidence_is_the_geometric_mean_of_its_tokens() -> None:
    tokens = (Token(1, -1.0, 0), Token(2, -3.0, 0))
    assert HypothesisWord(" ab", tokens).confidence == pytest.approx(exp(-2.0))
    assert HypothesisWord("", ()).confidence == 0.0


@given(st.lists(st.integers(0, 3), max_size=8))
def test_attached_words_hold_every_token_in_order(lengths: list[int]) -> None:
    tokens = [Token(index, 0.0, 0) for index in range(sum(lengths))]
    ids = iter(range(sum(lengths)))
    pieces = [(f" {n}", [next(ids) for _ in range(n)]) for n in lengths]
    words = attach(pieces, tokens)
    assert [text.text for text in words] == [text for text, _ in pieces]
    assert [token for text in words for token in text.tokens] == tokens


def test_a_split_that_does_not_cover_the_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="the words hold 1 tokens, the hypothesis 2"):
        attach([(" a", [1])], [Token(1, 0.0, 0), Token(2, 0.0, 0)])


def test_words_end_behind_the_furthest_peak_and_never_beyond_the_limit() -> None:
    start, limit = Samples(5000), Samples(10_000)
    assert end_of([], start, limit) == start
    assert end_of([word(" a", 3)], start, limit) == start + 4 * SAMPLES_PER_POSITION
    assert end_of([word(" a", 3), word(" b", 1)], start, limit) == end_of(
        [word(" a", 3)], start, limit
    )
    assert end_of([word(" a", 900)], start, limit) == limit
