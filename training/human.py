"""Manifests of human speech: who may be heard, and what of a transcript is certain.

A manifest is a TSV file with the columns path, seconds, transcript, language, speaker, source
and licence; paths are relative to it.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.errors import RecipeError

COLUMNS: Final = ("path", "seconds", "transcript", "language", "speaker", "source", "licence")
# Hours by source, licence, and how often they are heard for one time that synthetic speech is.
People = dict[tuple[str, str, int], float]
_SHORTEST_S, _LONGEST_S = 0.3, 27.0
_SPEAKABLE: Final = re.compile(r"[A-Za-z][A-Za-z ,.?!'-]*")


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording of a person. `certain` is False where `text` lost its case or its marks."""

    path: Path
    text: str
    speaker: str
    certain: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """The usable English recordings of a manifest, and what its card has to name.

    `origins` counts hours by (source, licence); `num_left_out` recordings were not usable.
    """

    recordings: tuple[Recording, ...]
    origins: dict[tuple[str, str], float]
    num_left_out: int


def read_manifest(path: Path) -> Manifest:
    """Read `path`; recordings with figures or foreign letters in their text are left out."""
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    recordings = []
    num_rows = 0
    for row in rows_of(path):
        num_rows += 1
        if is_usable(row):
            written, certain = as_written(row["transcript"].strip())
            audio = path.parent / row["path"]
            recordings.append(Recording(audio, written, row["speaker"], certain))
            seconds[row["source"], row["licence"]] += float(row["seconds"])
    hours = {origin: total / 3600 for origin, total in seconds.items()}
    return Manifest(tuple(recordings), hours, num_rows - len(recordings))


def is_usable(row: Mapping[str, str]) -> bool:
    """English, neither too short nor too long, and all of its text can be read out."""
    return (
        row["language"] == "en"
        and _SHORTEST_S <= float(row["seconds"]) <= _LONGEST_S
        and _SPEAKABLE.fullmatch(row["transcript"].strip()) is not None
    )


def hours_heard(weighed: Iterable[tuple[Manifest, int]]) -> People:
    """Hours by (source, licence, weight) of all these manifests together."""
    hours: defaultdict[tuple[str, str, int], float] = defaultdict(float)
    for manifest, weight in weighed:
        for origin, more in manifest.origins.items():
            hours[(*origin, weight)] += more
    return dict(hours)


def as_written(transcript: str) -> tuple[str, bool]:
    """`transcript` with what is certain restored, and whether that is all of it.

    Text in capitals alone tells no case: it becomes small letters but for "I". Text without a
    mark at its end tells no punctuation. Either way the loss has to ignore both.
    """
    text = re.sub(r"\s+", " ", transcript)
    has_case = text != text.upper() and text != text.lower()
    if has_case and text[-1] in ".?!":
        return text, True
    if not has_case:
        text = re.sub(r"\bi\b", "I", text.lower())
    return text, False


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a manifest as they are. Raises RecipeError."""
    if not path.is_file():
        raise RecipeError(f"{path}: expected a manifest, found no file")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if missing := set(COLUMNS) - set(reader.fieldnames or ()):
            raise RecipeError(f"{path}: expected columns {', '.join(sorted(missing))} as well")
        yield from reader
