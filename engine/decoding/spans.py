"""Timestamp spans: what Whisper itself calls segments, read from a hypothesis' tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.audio.units import SAMPLES_PER_POSITION, Samples
from engine.decoding.hypothesis import Token


@dataclass(frozen=True, slots=True)
class Span:
    """Text tokens between two timestamps, in samples of the window.

    `end` is None where the hypothesis stops before it closes the span. `num_tokens` is how
    many tokens of the hypothesis lie up to and including the closing timestamp.
    """

    start: Samples
    end: Samples | None
    tokens: tuple[Token, ...]
    num_tokens: int


def parse_spans(tokens: Sequence[Token], timestamp_begin: int) -> list[Span]:
    """Split a hypothesis at its timestamp tokens; spans without text are left out."""
    spans: list[Span] = []
    start = Samples(0)
    text: list[Token] = []
    for index, token in enumerate(tokens):
        if token.id < timestamp_begin:
            text.append(token)
            continue
        at = Samples((token.id - timestamp_begin) * SAMPLES_PER_POSITION)
        if text:
            spans.append(Span(start, at, tuple(text), index + 1))
            text = []
        start = at
    if text:
        spans.append(Span(start, None, tuple(text), len(tokens)))
    return spans
