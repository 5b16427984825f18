"""What goes into the engine and what comes out of it: commands and events.

Every time is a position on the session's sample clock (16 kHz samples). Commands of one
utterance arrive in order: open, then audio and pauses, then finish or cancel. Every opened
utterance that is not cancelled ends with exactly one `UtteranceFinished` or `UtteranceFailed`.
"""

from dataclasses import dataclass
from typing import Literal, NewType

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE, Samples, samples_from_ms

UtteranceId = NewType("UtteranceId", int)

Task = Literal["transcribe", "translate"]
Context = Literal["auto", "full", "trimmed"]


@dataclass(frozen=True, slots=True)
class UtteranceOptions:
    """How one utterance is to be decoded.

    `languages` limits detection where `language` is None (empty: any that the model knows).
    `append_only` commits text during the utterance and forces it as the prefix of later
    decodes; without it the final is the free decode of the whole segment.
    """

    language: str | None = None
    languages: tuple[str, ...] = ()
    task: Task = "transcribe"
    prompt: str = ""
    interim_results: bool = True
    append_only: bool = True
    interim_interval: Samples = samples_from_ms(400)  # two to three words; PROTOCOL's default
    max_segment: Samples = Samples(28 * SAMPLE_RATE)  # leaves 2 s of the window for a late cut
    timestamps: bool = False
    word_timestamps: bool = False
    context: Context = "auto"


@dataclass(frozen=True, slots=True)
class OpenUtterance:
    """Speech begins; `start` is where its audio (pre-roll included) begins."""

    utterance_id: UtteranceId
    start: Samples
    options: UtteranceOptions


@dataclass(frozen=True, slots=True)
class AppendAudio:
    """More audio of an open utterance; `samples` is float32 in [-1, 1], 16 kHz mono."""

    utterance_id: UtteranceId
    samples: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PauseUtterance:
    """The end of speech looks likely: compute the final of the audio so far early.

    Audio that follows takes it back.
    """

    utterance_id: UtteranceId


@dataclass(frozen=True, slots=True)
class FinishUtterance:
    """No more audio: the final follows."""

    utterance_id: UtteranceId


@dataclass(frozen=True, slots=True)
class CancelUtterance:
    """Nobody is waiting any more: forget it, publish nothing."""

    utterance_id: UtteranceId


Command = OpenUtterance | AppendAudio | PauseUtterance | FinishUtterance | CancelUtterance


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its times; `text` carries no leading space."""

    text: str
    start: Samples
    end: Samples
    confidence: float


@dataclass(frozen=True, slots=True)
class TimestampSpan:
    """Whisper's own "segment": text between two timestamp tokens."""

    start: Samples
    end: Samples
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HypothesisUpdated:
    """A partial: `text` begins with `stable_text`, which only grows within a segment.

    `segment` counts from 0 within the utterance; a cut utterance has several. `interval` is what
    now lies between partials: what was asked for, or more where the device has not time for it.
    """

    utterance_id: UtteranceId
    segment: int
    start: Samples
    end: Samples
    text: str
    stable_text: str
    stable_end: Samples
    language: str
    interval: Samples


@dataclass(frozen=True, slots=True)
class SegmentClosed:
    """A final. `text` begins with the last `stable_text` of its segment; it may be empty."""

    utterance_id: UtteranceId
    segment: int
    start: Samples
    end: Samples
    text: str
    language: str
    language_probability: float
    confidence: float
    no_speech_prob: float
    avg_logprob: float
    compression_ratio: float
    temperature: float
    tokens: tuple[int, ...]
    words: tuple[Word, ...]
    spans: tuple[TimestampSpan, ...]


@dataclass(frozen=True, slots=True)
class UtteranceFinished:
    """Every segment of the utterance was closed."""

    utterance_id: UtteranceId


@dataclass(frozen=True, slots=True)
class UtteranceFailed:
    """The engine could not decode this utterance; others go on."""

    utterance_id: UtteranceId
    message: str


EngineEvent = HypothesisUpdated | SegmentClosed | UtteranceFinished | UtteranceFailed


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the loaded checkpoint is and can do, for whoever talks to users.

    `languages` are ISO 639-1 codes the model can be told (and detects, when more than one);
    an English-only model knows `en` alone and cannot translate. `timestamps`: its timestamp
    tokens are worth asking for.
    """

    name: str
    languages: tuple[str, ...]
    tasks: tuple[Task, ...]
    timestamps: bool = True
