"""Drafts: the previous hypothesis of a growing window, offered for verification.

A draft is scored in one pass; the longest prefix that greedy decoding would have produced is
accepted, so the outcome is exactly greedy decoding's (Leviathan et al. 2023, arXiv 2211.17192,
with a deterministic drafter). Where hypothesis and draft part ways over a word, the rest of the
draft is taken up again behind it.
"""

from collections.abc import Sequence
from typing import Final

_ANCHOR: Final = 2  # tokens that must match before a draft is taken up again
_WORTHWHILE: Final = 2  # a shorter draft saves no pass over decoding token by token


def accept(draft: Sequence[int], predicted: Sequence[int]) -> int:
    """How many leading draft tokens greedy decoding would have produced.

    `predicted[i]` is the choice after the first i draft tokens; one more than the draft holds.
    """
    accepted = 0
    for ours, theirs in zip(draft, predicted, strict=False):
        if ours != theirs:
            break
        accepted += 1
    return accepted


def propose(previous: Sequence[int], current: Sequence[int]) -> tuple[int, ...]:
    """What may follow `current`, given the hypothesis `previous` of the same audio.

    While `current` is a prefix of `previous`, the rest of it. Once they differ, whatever
    followed the last `_ANCHOR` tokens of `current` in `previous`, at or behind the place where
    they parted. Empty where nothing is worth a verification.
    """
    common = accept(current, previous)
    if common == len(current):
        return tuple(previous[common:])
    anchor = tuple(current[-_ANCHOR:])
    if len(current) - common < _ANCHOR:
        return ()
    for at in range(common, len(previous) - _ANCHOR - _WORTHWHILE + 1):
        if tuple(previous[at : at + _ANCHOR]) == anchor:
            return tuple(previous[at + _ANCHOR :])
    return ()
