"""Has an engine hear recordings: whole, by stretches of speech, and as live speech.

Live, every utterance grows by the interval of partials, each window is decoded, what two agree on
is committed, and a final follows. The clock stands still meanwhile: nobody's partials become
rarer, so that the texts do not depend on how fast the machine is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from engine.assembly import Engine
from engine.audio.units import Samples, samples_from_ms
from engine.bench.wer_sets import Audio, Recording
from engine.bench.wer_text import changed_words
from engine.errors import StepError
from engine.events import (
    AppendAudio,
    Command,
    Context,
    EngineEvent,
    FinishUtterance,
    HypothesisUpdated,
    OpenUtterance,
    SegmentClosed,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
    UtteranceOptions,
)
from engine.loop import Loop
from engine.offline import Region

FindSpeech = Callable[[Audio], Sequence[Region]]

WHOLE: Final = "offline, whole"
SPEECH: Final = "offline, speech"
FINALS: Final = "live, finals"
PARTIALS: Final = "live, last partials"

AT_ONCE: Final = 32  # recordings held in memory, utterances that speak at the same time


@dataclass(frozen=True, slots=True)
class Hearing:
    """How recordings are heard.

    `find_speech` divides them as a session would; without it there is no such way, and live
    speech is the whole recording. `live` takes some ten times as long as all else.
    """

    context: Context = "auto"
    interval_ms: int = 400
    whole: bool = True
    find_speech: FindSpeech | None = None
    live: bool = True


@dataclass(slots=True)
class Heard:
    """What was heard of one utterance, or of all utterances of a recording.

    `shown` is what stood on the screen just before its last final. `partial_words` are the words
    of all partials, `changed_words` those of them that a later text did not keep.
    """

    text: str = ""
    shown: str = ""
    partial_words: int = 0
    changed_words: int = 0

    def __add__(self, other: "Heard") -> "Heard":
        return Heard(
            f"{self.text} {other.text}".strip(),
            f"{self.shown} {other.shown}".strip(),
            self.partial_words + other.partial_words,
            self.changed_words + other.changed_words,
        )


# Samples, the regions of them that are decoded, the language if it is told, a name for errors.
Spoken = tuple[Audio, Sequence[Region], str | None, str]


class Ears:
    """Has an engine hear recordings. Touched only by the thread that measures."""

    def __init__(self, engine: Engine, hearing: Hearing) -> None:
        self._hearing = hearing
        self._events: list[EngineEvent] = []
        self._loop = Loop(engine, self._events.append, clock=lambda: 0.0)
        self._at_once = max(1, min(AT_ONCE, engine.metrics.slots))
        self._opened = 0

    def divided(self, samples: Audio) -> dict[str, Sequence[Region]]:
        """What is decoded of `samples` [n] in each of the offline ways."""
        ways: dict[str, Sequence[Region]] = {}
        if self._hearing.whole or self._hearing.find_speech is None:
            ways[WHOLE] = [(Samples(0), Samples(len(samples)))]
        if self._hearing.find_speech is not None:
            ways[SPEECH] = self._hearing.find_speech(samples)
        return ways

    def hear(
        self, recordings: Sequence[Recording], samples: Sequence[Audio]
    ) -> Iterator[tuple[str, list[Heard], float]]:
        """Each way, what was heard of each recording, and the seconds that it took."""
        divided = [self.divided(it) for it in samples]
        spoken: list[Spoken] = []
        for way in divided[0]:
            spoken = [
                (audio, regions[way], recording.language, str(recording.path))
                for audio, regions, recording in zip(samples, divided, recordings, strict=True)
            ]
            began = perf_counter()
            heard = self.offline(spoken)
            yield way, heard, perf_counter() - began
        if self._hearing.live:  # of the last way: speech, where it is looked for
            began = perf_counter()
            heard = self.live(spoken)
            wall_s = perf_counter() - began
            yield FINALS, heard, wall_s
            yield PARTIALS, heard, wall_s

    def offline(self, spoken: Sequence[Spoken]) -> list[Heard]:
        """Decode everything at once."""
        opened: dict[UtteranceId, _Utterance] = {}
        commands: list[Command] = []
        for utterance in self._utterances(spoken, live=False):
            opened[utterance.id] = utterance
            commands += [
                utterance.opening,
                AppendAudio(utterance.id, utterance.samples),
                FinishUtterance(utterance.id),
            ]
        self._run(commands, opened)
        return _joined(len(spoken), list(opened.values()))

    def live(self, spoken: Sequence[Spoken]) -> list[Heard]:
        """Let everything grow by the interval, as many utterances at once as have slots."""
        waiting = list(self._utterances(spoken, live=True))
        step = samples_from_ms(self._hearing.interval_ms)
        for start in range(0, len(waiting), self._at_once):
            speaking = waiting[start : start + self._at_once]
            opened = {utterance.id: utterance for utterance in speaking}
            self._run([utterance.opening for utterance in speaking], opened)
            at = 0
            while speaking:
                self._run(
                    [AppendAudio(it.id, it.samples[at : at + step]) for it in speaking], opened
                )
                at += step
                ended = [it for it in speaking if len(it.samples) <= at]
                self._run([FinishUtterance(it.id) for it in ended], opened)
                speaking = [it for it in speaking if len(it.samples) > at]
        return _joined(len(spoken), waiting)

    def _utterances(self, spoken: Sequence[Spoken], *, live: bool) -> Iterator["_Utterance"]:
        interval = samples_from_ms(self._hearing.interval_ms)
        for number, (samples, regions, language, name) in enumerate(spoken):
            options = UtteranceOptions(
                language=language,
                interim_results=live,
                append_only=live,
                interim_interval=interval,
                context=self._hearing.context,
            )
            for start, end in regions:
                self._opened += 1
                opening = OpenUtterance(UtteranceId(self._opened), start, options)
                yield _Utterance(number, name, opening, samples[start:end])

    def _run(self, commands: Sequence[Command], opened: Mapping[UtteranceId, "_Utterance"]) -> None:
        """Commands, then every step that they bring about."""
        self._loop.take(commands)
        while self._loop.run_step():
            pass
        for event in self._events:
            opened[event.utterance_id].receive(event)
        self._events.clear()


@dataclass(slots=True)
class _Utterance:
    """One utterance, and what was heard of it so far."""

    recording: int  # its place among those that are heard together
    name: str
    opening: OpenUtterance
    samples: Audio
    heard: Heard = field(default_factory=Heard)
    _revisions: list[list[str]] = field(default_factory=list)  # of the open segment

    @property
    def id(self) -> UtteranceId:
        return self.opening.utterance_id

    def receive(self, event: EngineEvent) -> None:
        """Raises StepError where the engine could not decode it."""
        match event:
            case HypothesisUpdated(text=text):
                self._revisions.append(text.split())
            case SegmentClosed(text=text):
                newest = " ".join(self._revisions[-1]) if self._revisions else ""
                self.heard = Heard(
                    f"{self.heard.text} {text}".strip(),
                    f"{self.heard.text} {newest}".strip(),
                    self.heard.partial_words + sum(map(len, self._revisions)),
                    self.heard.changed_words + changed_words(self._revisions, text.split()),
                )
                self._revisions.clear()
            case UtteranceFailed(message=message):
                raise StepError(f"{self.name}: {message}")
            case UtteranceFinished():
                pass


def _joined(count: int, utterances: Sequence[_Utterance]) -> list[Heard]:
    """What was heard of each of `count` recordings; their utterances are in order."""
    joined = [Heard() for _ in range(count)]
    for utterance in utterances:
        joined[utterance.recording] += utterance.heard
    return joined
