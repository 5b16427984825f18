from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import SAMPLES_PER_POSITION
from engine.decoding.hypothesis import Token
from engine.decoding.spans import Span, parse_spans

BEGIN = 1000  # <|0.00|>


def tokens(*ids: int) -> tuple[Token, ...]:
    return tuple(Token(number, 0.0, 0) for number in ids)


def described(spans: list[Span]) -> list[tuple[int, int | None, list[int], int]]:
    """Times in positions."""
    return [
        (
            span.start // SAMPLES_PER_POSITION,
            None if span.end is None else span.end // SAMPLES_PER_POSITION,
            [token.id for token in span.tokens],
            span.num_tokens,
        )
        for span in spans
    ]


def test_text_between_two_timestamps_is_a_span() -> None:
    spans = parse_spans(tokens(BEGIN, 1, 2, BEGIN + 50, BEGIN + 60, 3, BEGIN + 90), BEGIN)
    assert described(spans) == [(0, 50, [1, 2], 4), (60, 90, [3], 7)]


def test_a_span_that_is_not_closed_has_no_end() -> None:
    spans = parse_spans(tokens(BEGIN, 1, BEGIN + 50, BEGIN + 50, 2), BEGIN)
    assert described(spans) == [(0, 50, [1], 3), (50, None, [2], 5)]


def test_text_without_timestamps_is_one_open_span() -> None:
    assert described(parse_spans(tokens(1, 2), BEGIN)) == [(0, None, [1, 2], 2)]


def test_timestamps_without_text_are_no_span() -> None:
    assert parse_spans(tokens(BEGIN, BEGIN + 10), BEGIN) == []
    assert parse_spans((), BEGIN) == []


@given(st.lists(st.one_of(st.integers(0, 9), st.integers(BEGIN, BEGIN + 1500))))
def test_the_spans_hold_all_text_once(ids: list[int]) -> None:
    spans = parse_spans(tokens(*ids), BEGIN)
    assert [token.id for span in spans for token in span.tokens] == [i for i in ids if i < BEGIN]
    for span in spans:
        assert span.tokens
        assert ids[: span.num_tokens].count(span.tokens[-1].id) > 0
        assert span.end is None or ids[span.num_tokens - 1] >= BEGIN
