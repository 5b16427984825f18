"""Decides whether a finished hypothesis is kept, decoded again or dropped.

The gates are openai/whisper's (`transcribe.py`, `decode_with_fallback`), and one of ours: a
repetition found while decoding, on token ids alone, without lists of phrases.
"""

import zlib
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from engine.config import QualityThresholds
from engine.decoding.hypothesis import Hypothesis

_MIN_REPEATS: Final = 4  # "no, no, no" is speech; a fourth time in a row is a loop
_MIN_REPEATED_TOKENS: Final = 12  # and short cycles must go on longer than that
_MAX_CYCLE: Final = 24


class Verdict(Enum):
    """What becomes of a hypothesis."""

    KEEP = auto()
    RETRY = auto()
    DROP = auto()


def compression_ratio(text: str) -> float:
    """UTF-8 bytes over zlib-compressed bytes; high for text that repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def loop_start(tokens: Sequence[int]) -> int | None:
    """Where the cycle begins that `tokens` ends in, or None.

    A cycle of c tokens counts when it came at least `_MIN_REPEATS` times in a row over at
    least `_MIN_REPEATED_TOKENS` tokens. The index is behind its first round, so that
    `tokens[:loop_start(tokens)]` keeps the words once.
    """
    count = len(tokens)
    for cycle in range(1, min(_MAX_CYCLE, count // _MIN_REPEATS) + 1):
        matched = 0
        while (
            matched < count - cycle and tokens[count - 1 - matched] == tokens[-1 - matched - cycle]
        ):
            matched += 1
        length = matched + cycle
        if length >= max(_MIN_REPEATED_TOKENS, _MIN_REPEATS * cycle):
            return count - length + cycle
    return None


def judge(
    hypothesis: Hypothesis, text: str, thresholds: QualityThresholds, *, looped: bool
) -> Verdict:
    """Judge a hypothesis whose text is `text`; `looped` where decoding was ended by the guard.

    Silence first: a likely no-speech window with an unsure text is dropped whatever else it is.
    """
    unsure = hypothesis.avg_logprob < thresholds.avg_logprob
    if hypothesis.no_speech_prob > thresholds.no_speech and unsure:
        return Verdict.DROP
    if looped or unsure or compression_ratio(text) > thresholds.compression_ratio:
        return Verdict.RETRY
    return Verdict.KEEP
