"""Written words: punctuation joined to the word it belongs to, times from token boundaries."""

from collections.abc import Sequence
from typing import Final

from engine.audio.units import SAMPLES_PER_POSITION, Samples
from engine.decoding.cut import TimedWord
from engine.decoding.hypothesis import HypothesisWord

# openai/whisper `timing.py`, the defaults of add_word_timestamps.
_OPENING: Final = frozenset("\"'“¿([{-")
_CLOSING: Final = frozenset("\"'.。,，!！?？:：”)]}、")  # noqa: RUF001 - full-width is meant


def merge_punctuation(words: Sequence[HypothesisWord]) -> list[HypothesisWord]:
    """Join opening marks to the following word and closing marks to the one before.

    Every token stays, in order.
    """
    merged: list[HypothesisWord] = []
    opening: HypothesisWord | None = None
    for word in words:
        if opening is not None:
            word = _joined(opening, word)
            opening = None
        if word.text.startswith(" ") and word.text.strip() in _OPENING:
            opening = word
        elif merged and word.text in _CLOSING and not merged[-1].text.endswith(" "):
            merged[-1] = _joined(merged[-1], word)
        else:
            merged.append(word)
    if opening is not None:
        merged.append(opening)
    return merged


def time_words(
    words: Sequence[HypothesisWord], boundaries: Sequence[int], num_samples: Samples
) -> list[TimedWord]:
    """Give `words` their times in samples of the window of `num_samples`.

    `boundaries` holds the first position of each of their tokens and of `eot`.
    """
    timed, at = [], 0
    for word in words:
        first, at = at, at + len(word.tokens)
        start, end = (boundaries[index] * SAMPLES_PER_POSITION for index in (first, at))
        timed.append(TimedWord(Samples(min(start, num_samples)), Samples(min(end, num_samples))))
    return timed


def _joined(left: HypothesisWord, right: HypothesisWord) -> HypothesisWord:
    return HypothesisWord(left.text + right.text, left.tokens + right.tokens)
