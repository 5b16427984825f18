"""Word errors of recordings with transcripts, and words that are heard where nobody speaks.

`engine.bench.wer_hearing` has the recordings heard; here what was heard is compared with what was
said, and counted for each way to hear it, each degraded copy and each group.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from engine.assembly import Engine
from engine.audio.file import read_audio
from engine.audio.units import seconds_from_samples
from engine.bench.wer_hearing import (
    AT_ONCE,
    FINALS,
    PARTIALS,
    SPEECH,
    WHOLE,
    Ears,
    Heard,
    Hearing,
)
from engine.bench.wer_sets import Degrade, Recording, in_groups, seed_of
from engine.bench.wer_sounds import SOUNDS, Sound
from engine.bench.wer_text import Scorer, TextErrors

Advance = Callable[[float], None]  # takes the seconds of audio that were heard since the last call

_SEED: Final = 7  # of the sounds in which nobody speaks
_EXCERPT: Final = 60  # characters shown of what was invented


@dataclass(frozen=True, slots=True)
class Comparison:
    """One recording heard in one way, beside what was said. `path` is as the manifest has it."""

    way: str
    audio: str  # the copy
    group: str
    path: str
    said: str
    heard: str
    errors: TextErrors
    partial_words: int = 0
    changed_words: int = 0

    @property
    def percent(self) -> float:
        """Its word error rate."""
        return self.errors.words.percent(self.errors.words.count)

    def as_json(self) -> dict[str, Any]:
        """Everything that `Comparison` holds, as plain values."""
        return asdict(self)


@dataclass(slots=True)
class _Tally:
    recordings: int = 0
    seconds: float = 0.0
    wall_s: float = 0.0
    partial_words: int = 0
    changed_words: int = 0
    errors: TextErrors = field(default_factory=TextErrors)

    def add(self, comparison: Comparison, seconds: float) -> None:
        self.recordings += 1
        self.seconds += seconds
        self.partial_words += comparison.partial_words
        self.changed_words += comparison.changed_words
        self.errors += comparison.errors

    def __add__(self, other: "_Tally") -> "_Tally":
        return _Tally(
            self.recordings + other.recordings,
            self.seconds + other.seconds,
            self.wall_s + other.wall_s,
            self.partial_words + other.partial_words,
            self.changed_words + other.changed_words,
            self.errors + other.errors,
        )


@dataclass(slots=True)
class Found:
    """The figures of every way, copy and group, and of every recording what was heard of it.

    `left_out` counts the recordings in languages that the model does not have.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    tallies: dict[tuple[str, str, str], _Tally] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each way, copy and group, and one of all where there are several groups."""
        rows = []
        for total in self.totals():
            pair = total["way"], total["audio"]
            of_pair = {key[2]: tally for key, tally in self.tallies.items() if key[:2] == pair}
            rows += [_row(*pair, group, tally) for group, tally in of_pair.items()]
            rows += [total] if len(of_pair) > 1 else []
        return rows

    def totals(self) -> list[dict[str, Any]]:
        """A row for each way and copy, over all groups."""
        totals: dict[tuple[str, str], _Tally] = {}
        for (way, audio, _), tally in self.tallies.items():
            totals[way, audio] = totals.get((way, audio), _Tally()) + tally
        return [_row(*pair, "all", tally) for pair, tally in totals.items()]

    def worst(self, number: int) -> list[Comparison]:
        """Recordings with the highest word error rates, in the most lifelike way they were heard.

        Where rates are alike, those with more words.
        """
        ways = {comparison.way for comparison in self.comparisons}
        way = next((way for way in (FINALS, SPEECH, WHOLE) if way in ways), None)
        of_way = [it for it in self.comparisons if it.way == way and it.errors.words.count]
        return sorted(of_way, key=lambda it: (-it.percent, -it.errors.words.units))[:number]


def measure(
    engine: Engine,
    recordings: Sequence[Recording],
    hearing: Hearing,
    copies: Mapping[str, Degrade],
    *,
    grouping: str = "source",
    advance: Advance | None = None,
) -> Found:
    """Hear every copy of every recording in every way.

    Raises AudioError for a recording that cannot be read, StepError where the engine failed,
    ImportError without the `bench` extra.
    """
    scorer, found = Scorer(), Found()
    ears = Ears(engine, hearing)
    languages = engine.info.languages
    known = [it for it in recordings if it.language in languages]
    found.left_out.update(it.language for it in recordings if it.language not in languages)
    for audio, degrade in copies.items():
        for group, members in in_groups(known, grouping).items():
            for start in range(0, len(members), AT_ONCE):
                some = members[start : start + AT_ONCE]
                samples = [degrade(read_audio(it.path), seed_of(it)) for it in some]
                for way, heard, wall_s in ears.hear(some, samples):
                    tally = found.tallies.setdefault((way, audio, group), _Tally())
                    tally.wall_s += wall_s
                    for it, said, taken in zip(some, samples, heard, strict=True):
                        comparison = _compare(scorer, it, taken, (way, audio, group))
                        tally.add(comparison, seconds_from_samples(len(said)))
                        found.comparisons.append(comparison)
                if advance is not None:
                    advance(sum(it.seconds for it in some))
    return found


def invented(
    engine: Engine,
    minutes: float,
    hearing: Hearing,
    *,
    sounds: Mapping[str, Sound] = SOUNDS,
    advance: Advance | None = None,
) -> list[dict[str, Any]]:
    """Words heard in `minutes` of each of `sounds`, in which nobody speaks: a row for each way.

    `speech s` is what the detector takes for speech. Raises StepError, ImportError.
    """
    scorer, ears = Scorer(), Ears(engine, hearing)
    rows = []
    for name, sound in sounds.items():
        samples = sound(60 * minutes, _SEED)
        for way, regions in ears.divided(samples).items():
            (heard,) = ears.offline([(samples, regions, None, name)])
            spoken = sum(end - start for start, end in regions)
            # No language is told, as where a session does not say: words are parted by spaces.
            words = scorer.count_words(heard.text, "")
            rows.append(
                {
                    "way": way,
                    "sound": name,
                    "minutes": minutes,
                    "speech s": seconds_from_samples(spoken) if way == SPEECH else None,
                    "words": words,
                    "words / min": words / minutes,
                    "heard": heard.text[:_EXCERPT],
                }
            )
        if advance is not None:
            advance(60 * minutes)
    return rows


def _compare(
    scorer: Scorer, recording: Recording, heard: Heard, key: tuple[str, str, str]
) -> Comparison:
    way, audio, group = key
    text = heard.shown if way == PARTIALS else heard.text
    return Comparison(
        way,
        audio,
        group,
        str(recording.path),
        recording.transcript,
        text,
        scorer.count_errors(recording.transcript, text, recording.language),
        heard.partial_words,
        heard.changed_words,
    )


def _row(way: str, audio: str, group: str, tally: _Tally) -> dict[str, Any]:
    words, characters = tally.errors.words, tally.errors.characters
    flickers = way == FINALS and tally.partial_words > 0
    return {
        "way": way,
        "audio": audio,
        "group": group,
        "number": tally.recordings,
        "minutes": tally.seconds / 60,
        "words": words.units,
        "WER %": words.percent(words.count),
        "sub %": words.percent(words.substitutions),
        "del %": words.percent(words.deletions),
        "ins %": words.percent(words.insertions),
        "CER %": characters.percent(characters.count),
        "RTFx": tally.seconds / tally.wall_s if tally.wall_s else None,
        "flicker %": 100 * tally.changed_words / tally.partial_words if flickers else None,
    }
