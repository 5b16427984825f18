"""Speech probabilities to the beginning, the likely end and the end of speech.

Decides one VAD frame at a time, so that any grouping of the same probabilities gives the same
events. Two thresholds (Silero's own rule, snakers4/silero-vad `VADIterator`): a frame at or above
`threshold` is speech, one more than 0.15 below it is silence, and one between them is what the
frame before it was. Leaves cutting the audio to `session`.

    SILENCE ──2 frames of speech──▶ SPEECH ──silence ≥ pause──▶ PAUSED ──silence ≥ endpoint──┐
       ▲                              ◀─────────speech────────────┘                          │
       └─────────────────────────────────────────────────────────────────────────────────────┘
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import Samples, samples_from_ms
from engine.metrics import StepMetrics

VAD_FRAME_SAMPLES: Final = 512  # 32 ms, what Silero takes at 16 kHz
MIN_SPEECH_FRAMES: Final = 2  # 64 ms: a click or a keystroke fills one frame, a syllable never
HYSTERESIS: Final = 0.15  # Silero's own: keeps soft syllables inside their word
MIN_SILENCE_THRESHOLD: Final = 0.01  # Silero's own: a low threshold must still allow an end
# Long enough that most pauses between words are over, short enough that the early final is
# ready when the default endpoint of 500 ms is declared.
PAUSE_SILENCE: Final = samples_from_ms(200)


class DetectorStream(Protocol):
    """One session's place in the detector."""

    def score(
        self,
        frames: NDArray[np.float32],  # [n, VAD_FRAME_SAMPLES], consecutive
        deliver: Callable[[NDArray[np.float32]], None],  # probabilities [n], in [0, 1]
    ) -> None:
        """Score the next frames; `deliver` is called later, from another thread, in order."""

    def close(self) -> None:
        """Leave; what waits is forgotten."""


class SpeechDetector(Protocol):
    """Scores VAD frames of all sessions."""

    @property
    def metrics(self) -> StepMetrics:
        """Its calls, and the VAD frames in them; to be read only."""

    def open(self) -> DetectorStream:
        """A stream with nothing heard yet."""

    def on_failure(self, callback: Callable[[Exception], None]) -> None:
        """`callback` hears, on another thread, what ended the detector."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech since `at`, the start of its first VAD frame."""

    at: Samples


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """Speech has probably ended at `at`, the end of its last VAD frame."""

    at: Samples


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """It had not: speech again since `at`."""

    at: Samples


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Speech ended at `at`, the end of its last VAD frame."""

    at: Samples


SpeechEvent = SpeechStarted | SpeechPaused | SpeechResumed | SpeechStopped


class _State(Enum):
    SILENCE = auto()
    SPEECH = auto()
    PAUSED = auto()


class Endpointer:
    """Follows one session's VAD frames. Touched only by its session.

    `threshold` is a probability; `endpoint_silence` is how much silence ends speech.
    """

    def __init__(self, threshold: float, endpoint_silence: Samples) -> None:
        self._speech_threshold = threshold
        self._silence_threshold = min(threshold, max(threshold - HYSTERESIS, MIN_SILENCE_THRESHOLD))
        self._endpoint_silence = endpoint_silence
        self.pause_silence = Samples(min(PAUSE_SILENCE, endpoint_silence))
        self.position = Samples(0)  # where the next VAD frame begins
        self.speech_end = Samples(0)  # end of the newest VAD frame of the current speech
        self._state = _State.SILENCE
        self._speech_frames = 0  # consecutive, while in SILENCE
        self._quiet = False  # whether silence has begun, while in SPEECH or PAUSED

    def receive(self, probability: float) -> list[SpeechEvent]:
        """What the next VAD frame decides."""
        self.position = Samples(self.position + VAD_FRAME_SAMPLES)
        if self._state is _State.SILENCE:
            return self._await_speech(probability)
        self._quiet = probability < (
            self._speech_threshold if self._quiet else self._silence_threshold
        )
        return self._await_end() if self._quiet else self._go_on()

    def reset(self) -> None:
        """Forget the current speech, as if silence had come before the next VAD frame."""
        self._state = _State.SILENCE
        self._speech_frames = 0

    def _await_speech(self, probability: float) -> list[SpeechEvent]:
        if probability < self._speech_threshold:
            self._speech_frames = 0
            return []
        self._speech_frames += 1
        if self._speech_frames < MIN_SPEECH_FRAMES:
            return []
        self._state = _State.SPEECH
        self._quiet = False
        self.speech_end = self.position
        return [SpeechStarted(Samples(self.position - MIN_SPEECH_FRAMES * VAD_FRAME_SAMPLES))]

    def _go_on(self) -> list[SpeechEvent]:
        self.speech_end = self.position
        if self._state is _State.SPEECH:
            return []
        self._state = _State.SPEECH
        return [SpeechResumed(Samples(self.position - VAD_FRAME_SAMPLES))]

    def _await_end(self) -> list[SpeechEvent]:
        events: list[SpeechEvent] = []
        silence = self.position - self.speech_end
        if self._state is _State.SPEECH and silence >= self.pause_silence:
            self._state = _State.PAUSED
            events.append(SpeechPaused(self.speech_end))
        if silence >= self._endpoint_silence:
            self.reset()
            events.append(SpeechStopped(self.speech_end))
        return events
