"""The `text` command: distinct sentences in a file, and some that are held out for measuring."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

from training.errors import RecipeError
from training.human import rows_of
from training.progress import progress_bar
from training.text.cleaning import as_sentence, words_of
from training.text.sources import read_installed
from training.text.templates import template_sentences

logger = logging.getLogger(__name__)

SENTENCES_FILE: Final = "sentences.tsv"
HELD_OUT_FILE: Final = "held-out.tsv"
# Installed texts make up at most this share: the rest is what people say to machines.
_MOST_INSTALLED: Final = 0.6
_FEWEST_WORDS_HELD_OUT: Final = 3
_PHRASE: Final = 6  # words
# Templates that repeat themselves this often in a row have nothing new to give.
_MOST_REPEATS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence as it is to be transcribed, and where it comes from."""

    kind: str
    text: str


def collect_text(
    directory: Path,
    *,
    count: int,
    held_out: int,
    seed: int,
    root: Path = Path("/"),
    prose: Sequence[Path] = (),
    apart: Sequence[Path] = (),
) -> int:
    """Write `count` sentences and `held_out` others to `directory`, unless they are there.

    Returns how many it holds now. What no package provided is said in the log. `prose` are
    directories of books; no sentence shares six words in a row with a transcript of the
    manifests `apart`. Raises RecipeError.
    """
    path = directory / SENTENCES_FILE
    measured = phrases_of(apart)
    if path.is_file() and len(existing := read_sentences(path)) >= count:
        if any(_is_measured(sentence.text, measured) for sentence in existing):
            raise RecipeError(f"{path}: expected nothing that the manifests hold; remove it")
        logger.info("%s holds %d sentences already", path, len(existing))
        return len(existing)
    rng = Random(seed)
    installed = read_installed(rng, root, prose)
    for lack in installed.lacking:
        logger.warning("%s", lack)
    wanted = count + held_out
    found: dict[str, Sentence] = {}
    with progress_bar("sentences", wanted) as bar:
        for sentence in _distinct(iter(installed.sentences), found, measured):
            bar.advance(note=sentence.kind)
            if len(found) >= _MOST_INSTALLED * wanted:
                break
        templates = template_sentences(rng, installed.lexicon())
        for sentence in islice(_distinct(templates, found, measured), wanted - len(found)):
            bar.advance(note=sentence.kind)
    if len(found) < wanted:
        raise RecipeError(f"templates gave {len(found)} distinct sentences, expected {wanted}")
    sentences = list(found.values())
    rng.shuffle(sentences)
    long_enough = [i for i, s in enumerate(sentences) if _may_be_held_out(s)]
    chosen = set(rng.sample(long_enough, min(held_out, len(long_enough))))
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / HELD_OUT_FILE, [sentences[i] for i in sorted(chosen)])
    _write(path, [s for i, s in enumerate(sentences) if i not in chosen])
    return len(sentences) - len(chosen)


def read_sentences(path: Path) -> list[Sentence]:
    """The sentences of a file that `collect_text` wrote. Raises RecipeError."""
    if not path.is_file():
        raise RecipeError(f"{path}: expected sentences, found no file; run `text` first")
    rows = (line.split("\t") for line in path.read_text("utf-8").splitlines())
    return [Sentence(kind, text) for kind, text in rows]


def phrases_of(manifests: Sequence[Path]) -> frozenset[str]:
    """Every six words in a row of their transcripts, which nothing to learn from may hold."""
    return frozenset(
        phrase
        for path in manifests
        for row in rows_of(path)
        for phrase in _phrases(row["transcript"])
    )


def _phrases(text: str) -> set[str]:
    words = words_of(text)
    return {" ".join(words[i : i + _PHRASE]) for i in range(len(words) - _PHRASE + 1)}


def _is_measured(text: str, measured: frozenset[str]) -> bool:
    return not measured.isdisjoint(_phrases(text))


def _distinct(
    raw: Iterator[tuple[str, str]], found: dict[str, Sentence], measured: frozenset[str]
) -> Iterator[Sentence]:
    """Those of `raw` that are sentences, not `measured`, not in `found` yet: they are put there."""
    repeats = 0
    for kind, text in raw:
        cleaned = as_sentence(text)
        if cleaned is None or (key := cleaned.lower()) in found or _is_measured(cleaned, measured):
            repeats += 1
            if repeats > _MOST_REPEATS:
                return
            continue
        repeats = 0
        found[key] = Sentence(kind, cleaned)
        yield found[key]


def _may_be_held_out(sentence: Sentence) -> bool:
    return len(words_of(sentence.text)) >= _FEWEST_WORDS_HELD_OUT and sentence.kind != "words"


def _write(path: Path, sentences: list[Sentence]) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{s.kind}\t{s.text}\n" for s in sentences), "utf-8")
    partial.rename(path)
