"""Word errors between two transcripts. Decides what a word is; jiwer aligns them.

Case, punctuation and how apostrophes are typed are writing, not hearing: they do not count.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_APOSTROPHES: Final = str.maketrans("\u2019\u02bc", "''")  # typographic, modifier letter
_QUOTES: Final = re.compile(r"(?<!\w)'|'(?!\w)")  # an apostrophe stands between two letters


class MissingPackageError(Exception):
    """A package of the `loadtest` extra is not installed; the message says how to get it."""

    def __init__(self, purpose: str, package: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'starling-asr[loadtest]'")


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Errors counted over one or many transcripts; they add up."""

    words: int = 0  # of the reference
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: "WordErrors") -> "WordErrors":
        return WordErrors(
            self.words + other.words,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    @property
    def rate(self) -> float | None:
        """Errors per word that was said; None where nothing was said."""
        errors = self.substitutions + self.deletions + self.insertions
        return errors / self.words if self.words else None


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared: lower case, composed, bare of punctuation."""
    plain = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).lower()
    spaced = (" " if unicodedata.category(c)[0] in "PS" and c != "'" else c for c in plain)
    return _QUOTES.sub(" ", "".join(spaced)).split()


def count_word_errors(pairs: Sequence[tuple[str, str]]) -> WordErrors:
    """Errors of what was heard against what was said, over pairs of (said, heard).

    Raises MissingPackageError.
    """
    try:
        import jiwer
    except ImportError as exc:
        raise MissingPackageError("counting word errors", "jiwer") from exc
    said = [" ".join(words_of(text)) for text, _ in pairs]
    heard = [" ".join(words_of(text)) for _, text in pairs]
    if not pairs:
        return WordErrors()
    counted = jiwer.process_words(said, heard)
    return WordErrors(
        words=counted.hits + counted.substitutions + counted.deletions,
        substitutions=counted.substitutions,
        deletions=counted.deletions,
        insertions=counted.insertions,
    )
