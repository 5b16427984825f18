"""Word and character errors between what was said and what was heard; words that flicker.

Both texts are normalised as in Whisper's own evaluations (Radford 2022, appendix C), by the
library that carries its rules and its list of spellings; jiwer aligns them.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

# Written without spaces: every letter counts as a word (the same appendix).
_LETTER_LANGUAGES: Final = ("zh", "ja", "th", "lo", "my", "yue")


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors counted over one or many texts; they add up."""

    units: int = 0  # words or characters that were said
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(
            self.units + other.units,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    @property
    def count(self) -> int:
        """Errors of all three kinds."""
        return self.substitutions + self.deletions + self.insertions

    def percent(self, number: int) -> float:
        """`number` per hundred units that were said; 0 where nothing was."""
        return 100 * number / self.units if self.units else 0.0


@dataclass(frozen=True, slots=True)
class TextErrors:
    """The same errors in words and in characters."""

    words: Errors = field(default_factory=Errors)
    characters: Errors = field(default_factory=Errors)

    def __add__(self, other: "TextErrors") -> "TextErrors":
        return TextErrors(self.words + other.words, self.characters + other.characters)


class Scorer:
    """Normalises and counts. Raises ImportError where the `bench` extra is not installed."""

    def __init__(self) -> None:
        # The `bench` extra; neither is needed to run the service.
        import jiwer
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer

        self._jiwer: Any = jiwer
        self._english: Any = EnglishTextNormalizer()
        self._spaced: Any = BasicTextNormalizer()
        self._by_letter: Any = BasicTextNormalizer(split_letters=True)

    def normalised(self, text: str, language: str) -> str:
        """`text` as it is compared, single spaces between its words."""
        if language == "en":
            # Its contractions are written with a straight apostrophe.
            said: str = self._english(unicodedata.normalize("NFKC", text).replace("\u2019", "'"))
        else:
            normaliser = self._by_letter if language in _LETTER_LANGUAGES else self._spaced
            said = normaliser(text)
        return " ".join(said.split())

    def count_words(self, text: str, language: str) -> int:
        """How many words `text` has as they are compared."""
        return len(self.normalised(text, language).split())

    def count_errors(self, said: str, heard: str, language: str) -> TextErrors:
        """The errors of what was heard, over the fewest that make it of what was said."""
        texts = [self.normalised(said, language)], [self.normalised(heard, language)]
        return TextErrors(
            _errors(self._jiwer.process_words(*texts)),
            _errors(self._jiwer.process_characters(*texts)),
        )


def changed_words(revisions: Sequence[Sequence[str]], final: Sequence[str]) -> int:
    """How many words of a segment's successive texts some later text did not keep in place.

    As the load test counts flicker: over the words of all `revisions`.
    """
    changed, kept, later = 0, len(final), final
    for words in reversed(revisions):
        pairs = zip(words, later, strict=False)
        common = next(
            (place for place, (one, other) in enumerate(pairs) if one != other),
            min(len(words), len(later)),
        )
        kept, later = min(common, kept), words
        changed += len(words) - kept
    return changed


def _errors(counted: Any) -> Errors:
    return Errors(
        counted.hits + counted.substitutions + counted.deletions,
        counted.substitutions,
        counted.deletions,
        counted.insertions,
    )
