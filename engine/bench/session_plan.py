"""Who speaks when in a simulated session, and what the engine is given of it at which moment.

Pure, and follows from the seed. What a server's endpointer and gate do with speech is done here
(docs/decisions/0001). Positions count 16 kHz samples of a session's audio, whose first is heard at
the same moment in all sessions.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import Samples, samples_from_ms, samples_from_seconds
from engine.events import (
    AppendAudio,
    Command,
    FinishUtterance,
    OpenUtterance,
    PauseUtterance,
    UtteranceId,
    UtteranceOptions,
)

# How people speak: most stretches are a sentence, few are a word or a story.
MEDIAN_SPEECH_S: Final = 2.5
SPEECH_SPREAD: Final = 0.5  # standard deviation of the logarithm
SHORTEST_S: Final = 0.8  # also of a pause: longer than any endpoint silence in use
LONGEST_S: Final = 12.0
_BEFORE_S: Final = 30.0  # how long before the first sample a session may have begun

# What `stream_server`'s endpointer and gate do with it.
DETECTOR_DELAY: Final = samples_from_ms(64)
PRE_ROLL: Final = samples_from_ms(300)
APPENDED: Final = samples_from_ms(100)
PAUSE_SILENCE: Final = samples_from_ms(200)
ENDPOINT_SILENCE: Final = samples_from_ms(500)

OPTIONS: Final = UtteranceOptions(language="en")

Audio = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Speech:
    """Somebody speaks from `start` to `end`."""

    start: Samples
    end: Samples

    @property
    def finished(self) -> Samples:
        """When the endpoint silence is over and the final is asked for."""
        return Samples(self.end + ENDPOINT_SILENCE)


@dataclass(frozen=True, slots=True)
class Due:
    """A command, and when it is given to the engine."""

    at: Samples
    command: Command


def plan_speech(number: int, seconds: float, *, seed: int = 0) -> list[Speech]:
    """When session `number` speaks: every stretch that begins within `seconds`, in order.

    Pauses are drawn as stretches of speech are, which makes speech of half of the time. The
    session began at a moment of its own before; who was speaking at 0 is not heard, so that of
    many sessions half speak from some four seconds on.
    """
    dice = random.Random(f"{seed}/{number}")
    at = -dice.uniform(0.0, _BEFORE_S)
    speaks = dice.random() < 0.5
    speeches = []
    while at < seconds:
        until = at + _draw_length(dice)
        if speaks and at >= 0.0:
            speeches.append(Speech(samples_from_seconds(at), samples_from_seconds(until)))
        at, speaks = until, not speaks
    return speeches


def _draw_length(dice: random.Random) -> float:
    while True:
        length = dice.lognormvariate(log(MEDIAN_SPEECH_S), SPEECH_SPREAD)
        if SHORTEST_S <= length <= LONGEST_S:
            return length


def plan_commands(
    speech: Speech, utterance_id: UtteranceId, read: Callable[[Samples, Samples], Audio]
) -> Iterator[Due]:
    """What the engine is given of `speech`, in order; `read` has the samples from one to another.

    Never audio before it was heard.
    """
    at = Samples(speech.start + DETECTOR_DELAY)
    given = Samples(max(0, speech.start - PRE_ROLL))
    paused = Samples(speech.end + PAUSE_SILENCE)
    yield Due(at, OpenUtterance(utterance_id, given, OPTIONS))
    while at < paused:
        yield Due(at, AppendAudio(utterance_id, read(given, at)))
        given, at = at, Samples(at + APPENDED)
    yield Due(paused, AppendAudio(utterance_id, read(given, paused)))
    yield Due(paused, PauseUtterance(utterance_id))
    yield Due(speech.finished, FinishUtterance(utterance_id))


@dataclass(frozen=True, slots=True)
class Timeline:
    """All commands of a level, which is a number of sessions at once, and what they are of."""

    dues: list[Due]
    speeches: dict[UtteranceId, Speech]


def plan_level(
    sessions: int,
    seconds: float,
    utterance_ids: Iterator[UtteranceId],
    read: Callable[[Samples, Samples], Audio],
    *,
    seed: int = 0,
) -> Timeline:
    """What `sessions` sessions say within `seconds`, each utterance with the next of the ids."""
    dues: list[Due] = []
    speeches: dict[UtteranceId, Speech] = {}
    for number in range(sessions):
        for speech in plan_speech(number, seconds, seed=seed):
            utterance_id = next(utterance_ids)
            speeches[utterance_id] = speech
            dues += plan_commands(speech, utterance_id, read)
    dues.sort(key=lambda due: due.at)
    return Timeline(dues, speeches)


def read_repeatedly(audio: Audio) -> Callable[[Samples, Samples], Audio]:
    """What everybody says: views of `audio` [n], repeated without end."""
    longest = PRE_ROLL + DETECTOR_DELAY  # that is read at once
    repeated = np.tile(audio, 1 + -(-longest // len(audio)))

    def read(start: Samples, end: Samples) -> Audio:
        at = start % len(audio)
        return repeated[at : at + end - start]

    return read
