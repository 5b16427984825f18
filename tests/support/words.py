"""Transcripts as words, for tests of what was heard rather than of how it is written."""

import re
from collections.abc import Sequence


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.sub(r"[^a-z0-9' ]", " ", text.lower().replace("\n", " ")).split()


def word_error_rate(said: Sequence[str], heard: Sequence[str]) -> float:
    """Words to insert, delete and replace on the shortest way, per word that was said."""
    distances = list(range(len(heard) + 1))
    for count, word in enumerate(said, start=1):
        before, distances[0] = distances.copy(), count
        for at, other in enumerate(heard, start=1):
            replaced = before[at - 1] + (word != other)
            distances[at] = min(replaced, before[at] + 1, distances[at - 1] + 1)
    return distances[-1] / len(said)


def occurrences(run: Sequence[str], words: Sequence[str]) -> int:
    """How often `run` stands in `words`."""
    starts = range(len(words) - len(run) + 1)
    return sum(words[at : at + len(run)] == run for at in starts)
