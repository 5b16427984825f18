"""Drafts: the previous hypothesis of a growing window, offered for verification.

A draft is scored in one pass; the longest prefix that greedy decoding would have produced is
accepted, so the outcome is exactly greedy decoding's (Leviathan et al. 2023, arXiv 2211.17192,
with a deterministic drafter). A pass always yields at least the one token that decoding would
have. Nothing is guessed behind the end of the previous hypothesis: that saved one pass in fifteen
and kept rows from sharing decode steps (docs/log.md).
"""

from collections.abc import Sequence
from typing import Final

_ANCHORS: Final = (2, 1)  # tokens that show where the two hypotheses meet again; longer is surer


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

    While `current` is a prefix of `previous`, the rest of it. Where they differ, what follows
    in `previous` the place where they meet again, or, as if one word had replaced another, what
    stands at the same distance from the start. Behind the end of `previous`, nothing.
    """
    common = accept(current, previous)
    if common == len(current):
        rest = previous[common:]
    else:
        rest = previous[_meeting(previous, current, common) :]
    return tuple(rest)


def _meeting(previous: Sequence[int], current: Sequence[int], common: int) -> int:
    """Where `previous` goes on behind the tokens that end `current`; they part at `common`."""
    for size in _ANCHORS:
        anchor = tuple(current[-size:])
        if size > len(current) - common:
            continue
        for at in range(common, len(previous) - size + 1):
            if tuple(previous[at : at + size]) == anchor:
                return at + size
    return len(current)
