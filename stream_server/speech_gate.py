"""Received samples to utterances: what of a session's audio the engine gets, and when.

Every complete VAD frame is sent off to be scored; only scored audio can pass. What passes
depends on the samples alone, never on how they were chunked or when the scores came:

    300 ms    speech                    200 ms    the rest of the endpoint silence
    ├─────────┼─────────────────────────┼─────────┼──────────────────────────────────
    open      append …                            pause; then withheld: appended if speech
                                                  resumes, the next pre-roll if it has ended

Leaves when speech begins and ends to `endpointer`, and what is told about it to `session`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import Samples, samples_from_ms, seconds_from_samples
from engine.events import (
    AppendAudio,
    CancelUtterance,
    EngineEvent,
    FinishUtterance,
    OpenUtterance,
    PauseUtterance,
    SegmentClosed,
    UtteranceFinished,
    UtteranceId,
    UtteranceOptions,
)
from stream_server import endpointer, protocol
from stream_server.effects import Effect, Score, Send, Submit
from stream_server.endpointer import MIN_SPEECH_FRAMES, VAD_FRAME_SAMPLES, Endpointer
from stream_server.sample_buffer import SampleBuffer

# The detector hears a word a little after it begins; first consonants would be clipped without.
PRE_ROLL: Final = samples_from_ms(300)


@dataclass(slots=True)
class _Given:
    """Audio of one utterance that the engine holds and has not closed a segment over."""

    start: Samples
    end: Samples
    finished: bool = False


class SpeechGate:
    """One session's audio on its way to the engine. Touched only by its session.

    `options` go with every utterance; `new_utterance_id` is the engine's.
    """

    def __init__(
        self,
        speech: Endpointer,
        options: UtteranceOptions,
        new_utterance_id: Callable[[], UtteranceId],
    ) -> None:
        self._endpointer = speech
        self._options = options
        self._new_utterance_id = new_utterance_id
        self._audio = SampleBuffer()
        self._sent = Samples(0)  # end of the VAD frames sent off to be scored
        self._passed = Samples(0)  # end of the audio given to the engine, in any utterance
        self._utterance: UtteranceId | None = None  # the open one
        self.newest: UtteranceId | None = None  # the last one opened
        self._paused = False
        self._given: dict[UtteranceId, _Given] = {}  # utterances the engine is not done with

    @property
    def received(self) -> Samples:
        """The sample clock."""
        return self._audio.end

    @property
    def scored(self) -> Samples:
        """End of the last VAD frame that has its probability."""
        return self._endpointer.position

    @property
    def unprocessed(self) -> Samples:
        """Audio not yet scored, and audio that the engine has beyond what it may await.

        The engine may hold one segment of the open utterance, `max_segment` long, until it hears
        the end of it: counting that would stop the reading that it waits for.
        """
        waiting = self.received - self.scored
        for given in self._given.values():
            awaited = 0 if given.finished else self._options.max_segment
            waiting += max(0, given.end - given.start - awaited)
        return Samples(waiting)

    def receive_audio(self, samples: NDArray[np.float32]) -> list[Effect]:
        """Samples [n] that follow all others, float32 16 kHz."""
        self._audio.append(samples)
        begin, self._sent = self._sent, frame_floor(self._audio.end)
        if self._sent == begin:
            return []
        return [Score(self._audio.read(begin, self._sent).reshape(-1, VAD_FRAME_SAMPLES))]

    def receive_probability(self, probability: float) -> list[Effect]:
        """The score of the next VAD frame. `release` must follow the last one at hand."""
        effects: list[Effect] = []
        for event in self._endpointer.receive(probability):
            match event:
                case endpointer.SpeechStarted(at=at):
                    effects += self._open(at)
                case endpointer.SpeechPaused(at=at):
                    effects += self._pause(at)
                case endpointer.SpeechResumed():
                    self._paused = False
                case endpointer.SpeechStopped(at=at):
                    effects += self._finish(at)
                case _:
                    assert_never(event)
        return effects

    def release(self) -> list[Effect]:
        """Pass on what was scored as speech, and forget what no utterance can need any more."""
        effects: list[Effect] = []
        needed = self._passed
        if self._utterance is None:
            lead = PRE_ROLL + MIN_SPEECH_FRAMES * VAD_FRAME_SAMPLES
            needed = Samples(max(needed, self.scored - lead))
        elif not self._paused:
            effects = self._pass_until(self._utterance, self.scored)
            needed = self._passed
        self._audio.discard_before(Samples(min(needed, self._sent)))
        return effects

    def cut(self, at: Samples) -> list[Effect]:
        """End the open utterance at `at`, in the VAD frame that is next to be scored.

        Speech that goes on after it opens another utterance, which begins exactly there.
        """
        if self._utterance is None:
            return []
        self._endpointer.reset()
        if self._paused:
            return self._finish(self._endpointer.speech_end)
        return [*self._pass_until(self._utterance, at), *self._finish(at)]

    def receive_event(self, event: EngineEvent) -> None:
        """Keep count of what the engine is done with."""
        given = self._given.get(event.utterance_id)
        if given is not None and isinstance(event, SegmentClosed):
            given.start = Samples(max(given.start, min(event.end, given.end)))
        if isinstance(event, UtteranceFinished):
            self._given.pop(event.utterance_id, None)

    def cancel(self) -> list[Effect]:
        """Give up every utterance that the engine is not done with."""
        cancelled = list(self._given)
        self._given.clear()
        self._utterance = None
        return [Submit(CancelUtterance(utterance_id)) for utterance_id in cancelled]

    def _open(self, at: Samples) -> list[Effect]:
        # Never before the end of the previous utterance: no sample is decoded into two finals.
        start = Samples(max(at - PRE_ROLL, self._passed))
        utterance_id = self._utterance = self.newest = self._new_utterance_id()
        self._given[utterance_id] = _Given(start, start)
        self._passed = start
        return [
            Send(protocol.SpeechStarted(at=seconds_from_samples(max(at, start)))),
            Submit(OpenUtterance(utterance_id, start, self._options)),
        ]

    def _pause(self, at: Samples) -> list[Effect]:
        utterance_id = self._require_utterance()
        self._paused = True
        mark = Samples(at + self._endpointer.pause_silence)
        return [*self._pass_until(utterance_id, mark), Submit(PauseUtterance(utterance_id))]

    def _finish(self, at: Samples) -> list[Effect]:
        utterance_id = self._require_utterance()
        self._given[utterance_id].finished = True
        self._utterance, self._paused = None, False
        return [
            Submit(FinishUtterance(utterance_id)),
            Send(protocol.SpeechStopped(at=seconds_from_samples(at))),
        ]

    def _pass_until(self, utterance_id: UtteranceId, end: Samples) -> list[Effect]:
        if end <= self._passed:
            return []
        samples = self._audio.read(self._passed, end)
        self._passed = self._given[utterance_id].end = end
        return [Submit(AppendAudio(utterance_id, samples))]

    def _require_utterance(self) -> UtteranceId:
        if self._utterance is None:
            raise RuntimeError("the endpointer ended speech that it had not begun")
        return self._utterance


def frame_floor(position: Samples) -> Samples:
    """The end of the last complete VAD frame at or before `position`."""
    return Samples(position - position % VAD_FRAME_SAMPLES)
