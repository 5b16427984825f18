"""Engine events to the wire's partials and finals.

Decides the order and the numbers: utterances appear strictly one after the other, however the
engine interleaves them, and their segments are numbered through the session. A segment that
never had words gets no number. Holds the engine to its word: stable text only grows and a final
begins with it; where it does not, EngineFailureError ends the session rather than a client
seeing text change that was promised not to.
"""

from dataclasses import dataclass, field
from typing import assert_never

from msgspec import UNSET

from engine.audio.units import seconds_from_samples
from engine.events import (
    EngineEvent,
    HypothesisUpdated,
    SegmentClosed,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
)
from stream_server import protocol
from stream_server.errors import EngineFailureError

TellableEvent = HypothesisUpdated | SegmentClosed | UtteranceFinished
TranscriptMessage = protocol.Partial | protocol.Final


@dataclass(slots=True)
class _Held:
    """Events of an utterance whose turn has not come."""

    events: list[TellableEvent] = field(default_factory=list)

    def hold(self, event: TellableEvent) -> None:
        newest = self.events[-1] if self.events else None
        if (
            isinstance(event, HypothesisUpdated | SegmentClosed)
            and isinstance(newest, HypothesisUpdated)
            and newest.segment == event.segment
        ):
            self.events[-1] = event
        else:
            self.events.append(event)


@dataclass(slots=True)
class _OpenSegment:
    """A segment that has had a partial."""

    number: int
    revision: int = 0
    stable_text: str = ""


class Transcript:
    """One session's transcript so far. Touched only by its session."""

    def __init__(self, *, word_timestamps: bool) -> None:
        self._word_timestamps = word_timestamps
        self._utterances: dict[UtteranceId, _Held] = {}  # unfinished ones; the first has its turn
        self._num_closed = 0  # segments of the first utterance
        self._segment: _OpenSegment | None = None
        self.num_segments = 0

    def open(self, utterance_id: UtteranceId) -> None:
        """A new utterance, to be told after all earlier ones."""
        self._utterances[utterance_id] = _Held()

    def is_settled(self, utterance_id: UtteranceId) -> bool:
        """Whether that utterance and all before it have been told in full."""
        return utterance_id not in self._utterances

    def receive(self, event: EngineEvent) -> list[TranscriptMessage]:
        """What can be told now. Events of utterances unknown here are late and tell nothing.

        Raises EngineFailureError.
        """
        if event.utterance_id not in self._utterances:
            return []
        if isinstance(event, UtteranceFailed):
            raise EngineFailureError(f"the engine could not decode this speech: {event.message}")
        self._utterances[event.utterance_id].hold(event)
        messages: list[TranscriptMessage] = []
        while self._utterances:
            turn = next(iter(self._utterances))
            ready, self._utterances[turn].events = self._utterances[turn].events, []
            for one in ready:
                messages += self._tell(one)
            if turn in self._utterances:
                break
        return messages

    def _tell(self, event: TellableEvent) -> list[TranscriptMessage]:
        match event:
            case HypothesisUpdated():
                return self._tell_partial(event)
            case SegmentClosed():
                return self._tell_final(event)
            case UtteranceFinished(utterance_id=utterance_id):
                if self._segment is not None:
                    raise EngineFailureError(
                        f"the engine finished an utterance with segment {self._num_closed} open"
                    )
                del self._utterances[utterance_id]
                self._num_closed = 0
                return []
            case _:
                assert_never(event)

    def _tell_partial(self, event: HypothesisUpdated) -> list[TranscriptMessage]:
        self._check_order(event.segment)
        if self._segment is None:
            if not event.text:
                return []
            self._segment = _OpenSegment(self._new_number())
        segment = self._segment
        _check_prefix("stable text", event.stable_text, segment.stable_text)
        _check_prefix("a hypothesis", event.text, event.stable_text)
        segment.stable_text = event.stable_text
        segment.revision += 1
        return [
            protocol.Partial(
                segment=segment.number,
                revision=segment.revision,
                start=seconds_from_samples(event.start),
                end=seconds_from_samples(event.end),
                text=event.text,
                stable_text=event.stable_text,
                stable_end=seconds_from_samples(event.stable_end),
                language=event.language,
            )
        ]

    def _tell_final(self, event: SegmentClosed) -> list[TranscriptMessage]:
        self._check_order(event.segment)
        self._num_closed += 1
        segment, self._segment = self._segment, None
        if segment is None:
            if not event.text:
                return []
            segment = _OpenSegment(self._new_number())
        _check_prefix("a final", event.text, segment.stable_text)
        return [
            protocol.Final(
                segment=segment.number,
                start=seconds_from_samples(event.start),
                end=seconds_from_samples(event.end),
                text=event.text,
                language=event.language,
                language_probability=event.language_probability,
                confidence=event.confidence,
                no_speech_prob=event.no_speech_prob,
                words=_words(event) if self._word_timestamps else UNSET,
            )
        ]

    def _new_number(self) -> int:
        self.num_segments += 1
        return self.num_segments - 1

    def _check_order(self, segment: int) -> None:
        if segment != self._num_closed:
            raise EngineFailureError(
                f"the engine spoke of segment {segment} where {self._num_closed} was due"
            )


def _check_prefix(what: str, text: str, prefix: str) -> None:
    if not text.startswith(prefix):
        raise EngineFailureError(
            f"the engine contradicted itself: {what} does not begin with the text already stable"
        )


def _words(event: SegmentClosed) -> list[protocol.Word]:
    return [
        protocol.Word(
            word=word.text,
            start=seconds_from_samples(word.start),
            end=seconds_from_samples(word.end),
            confidence=word.confidence,
        )
        for word in event.words
    ]
