"""Texts and word lists that Debian packages provide, where they are installed."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from training.errors import RecipeError
from training.text.cleaning import words_of
from training.text.templates import Lexicon

_WORDNET: Final = Path("usr/share/wordnet")
_FORTUNES: Final = Path("usr/share/games/fortunes")
_WORD_LISTS: Final = (
    Path("usr/share/dict/american-english"),
    Path("usr/share/dict/british-english"),
)
_PACKAGES: Final = {
    "wordnet-base": (_WORDNET, "literary sentences and explanations, rarer words"),
    "fortunes": (_FORTUNES, "quotations and sayings"),
    "wamerican or wbritish": (_WORD_LISTS[0].parent, "more words to spell"),
}
# Drawings, code, and jokes at others' expense.
_UNFIT_FORTUNES: Final = frozenset(
    {"ascii-art", "drugs", "ethnic", "men-women", "perl", "politics", "translate-me", "zippy"}
)
# Abbreviations that a name follows: their full stop ends no sentence.
_TITLE: Final = re.compile(r"\b(Mr|Mrs|Ms|Messrs|Dr|St|Capt|Col|Gen|Lieut|Rev|Prof|Hon|Mme)\.")
_NO_END: Final = "\0"
_PLAIN_QUOTES: Final = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
# A word that the texts hold less often than this has a pronunciation nobody can check.
_FEWEST_USES: Final = 3


@dataclass(frozen=True, slots=True)
class InstalledTexts:
    """Raw sentences by kind, words beyond the package's own lists, and what was not found."""

    sentences: tuple[tuple[str, str], ...]
    rare_words: tuple[str, ...]
    lacking: tuple[str, ...]

    def lexicon(self) -> Lexicon:
        """What templates draw from: the package's own words and the rarer ones found."""
        own = Lexicon()
        return Lexicon(rare=(*own.rare, *self.rare_words)) if self.rare_words else own


def read_installed(
    rng: Random, root: Path = Path("/"), prose: Sequence[Path] = ()
) -> InstalledTexts:
    """Gather what is installed below `root` and the books in `prose`, in an order of `rng`."""
    raw = [*_wordnet(root / _WORDNET), *_fortunes(root / _FORTUNES)]
    for directory in prose:
        raw += _books(directory)
    uses = Counter(word for _, text in raw for word in set(words_of(text)))
    known = [
        (kind, text) for kind, text in raw if min(uses[w] for w in words_of(text)) >= _FEWEST_USES
    ]
    rng.shuffle(known)
    frequent = {word for word, count in uses.items() if count >= _FEWEST_USES}
    rare = frequent | _listed_words([root / path for path in _WORD_LISTS])
    lacking = tuple(
        f"{package} is not installed: {gives} are missing"
        for package, (path, gives) in _PACKAGES.items()
        if not any((root / path).glob("*"))
    )
    plain = sorted(word for word in rare if 2 < len(word) < 13 and "'" not in word)
    return InstalledTexts(tuple(known), tuple(plain), lacking)


def _wordnet(directory: Path) -> Iterator[tuple[str, str]]:
    """Examples, which are in quotes, and the explanations around them."""
    for path in sorted(directory.glob("data.*")):
        for line in path.read_text("latin1").splitlines():
            _, bar, gloss = line.partition(" | ")
            if line.startswith("  ") or not bar:
                continue
            for example in re.findall(r'"([^"]+)"', gloss):
                yield from _readable("example", example, fewest=3)
            for explanation in re.sub(r'"[^"]*"', "", gloss).split(";"):
                yield from _readable("explanation", explanation, fewest=4)


def _fortunes(directory: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(directory.glob("*")):
        if path.suffix or path.name in _UNFIT_FORTUNES or not path.is_file():
            continue
        for fortune in path.read_text("utf-8", errors="ignore").split("\n%\n"):
            quoted = re.sub(r"\n\s*--.*", "", fortune, flags=re.DOTALL)
            yield from _sentences("saying", quoted)


def _books(directory: Path) -> Iterator[tuple[str, str]]:
    """The sentences of all plain texts in `directory`. Raises RecipeError."""
    paths = sorted(directory.glob("*.txt"))
    if not paths:
        raise RecipeError(f"{directory}: expected books as *.txt, found none")
    for path in paths:
        text = path.read_text("utf-8", errors="ignore").translate(_PLAIN_QUOTES)
        text = _TITLE.sub(rf"\1{_NO_END}", text)
        for paragraph in re.split(r"\n\s*\n|(?<=[.?!'\"])\n", text):
            yield from _sentences("prose", paragraph)


def _sentences(kind: str, paragraph: str) -> Iterator[tuple[str, str]]:
    """What begins with a capital and ends with a mark; quotation marks may stand around it."""
    flowing = _TITLE.sub(rf"\1{_NO_END}", re.sub(r"\s+", " ", paragraph))
    for found in re.split(r"(?<=[.?!])\s+|(?<=[.?!]['\"])\s+", flowing):
        sentence = found.replace(_NO_END, ".").strip("\"' ")
        if sentence[:1].isupper() and sentence[-1:] in ".?!":
            yield from _readable(kind, sentence, fewest=3)


def _readable(kind: str, text: str, *, fewest: int) -> Iterator[tuple[str, str]]:
    text = text.strip()
    if len(words_of(text)) >= fewest:
        yield kind, text


def _listed_words(paths: Sequence[Path]) -> set[str]:
    words: set[str] = set()
    for path in paths:
        if path.is_file():
            listed = path.read_text("utf-8", errors="ignore").split()
            words.update(word for word in listed if word.isascii() and word.isalpha())
    return {word for word in words if word.islower()}
