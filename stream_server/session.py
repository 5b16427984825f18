"""What one client's session does about each thing that happens to it.

Decides, from messages, speech probabilities and engine events, the effects that `connection`
performs in order. Does no I/O, reads no clock, holds no socket; the sample clock is its gate's.

**Phases.** NEW until `start`; OPEN while audio is taken; ENDING once `stop`, the idle timeout or
the server's own end said that no more will be; CLOSED when nothing that happens matters any more.

**Marks.** `flush`, `stop` and every other ending take effect at their place in the audio: a mark
waits until all VAD frames that were complete before it have been scored, then cuts the open
utterance, and is answered once `transcript` has told everything up to it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, assert_never, cast

from engine.audio.units import (
    Samples,
    samples_from_ms,
    samples_from_seconds,
    seconds_from_samples,
)
from engine.events import (
    EngineEvent,
    HypothesisUpdated,
    ModelInfo,
    Task,
    UtteranceId,
    UtteranceOptions,
)
from stream_server import protocol
from stream_server.effects import Close, Effect, Send
from stream_server.endpointer import Endpointer
from stream_server.errors import (
    AlreadyStartedError,
    IdleTimeoutError,
    MessageTooLargeError,
    NotStartedError,
    SessionError,
    ShuttingDownError,
    UnsupportedError,
)
from stream_server.lag_notice import LagNotice
from stream_server.pcm import ENCODINGS, PcmDecoder
from stream_server.speech_gate import SpeechGate, frame_floor
from stream_server.transcript import Transcript

RESUME_WINDOW_S: Final = 0  # no session outlives its connection yet


class _Phase(Enum):
    NEW = auto()
    OPEN = auto()
    ENDING = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class _Mark:
    """A place in the audio where what was heard is finalised, and what asked for it."""

    at: Samples
    cause: protocol.Flush | protocol.Stop | SessionError


@dataclass(frozen=True, slots=True)
class _Conversation:
    """What a session has from `start` on."""

    sample_rate: int
    decoder: PcmDecoder
    gate: SpeechGate
    transcript: Transcript
    lag: LagNotice


class Session:
    """One conversation, `start` to `done`. Touched only by its connection's task.

    The `receive_…` methods raise SessionError for what the client or the engine did wrong; the
    caller hands it to `abort`.
    """

    def __init__(
        self,
        session_id: str,
        token: str,
        model: ModelInfo,
        new_utterance_id: Callable[[], UtteranceId],
    ) -> None:
        self.session_id = session_id
        self._token = token
        self._model = model
        self._new_utterance_id = new_utterance_id
        self._phase = _Phase.NEW
        self._conversation: _Conversation | None = None
        self._marks: deque[_Mark] = deque()  # not reached yet
        self._reached: deque[tuple[_Mark, UtteranceId | None]] = deque()  # not answered yet

    @property
    def is_ending(self) -> bool:
        """Whether no more audio is awaited."""
        return self._phase in (_Phase.ENDING, _Phase.CLOSED)

    @property
    def unprocessed(self) -> Samples:
        """Audio received that neither the detector nor the engine has dealt with."""
        if self._conversation is None or self._phase is _Phase.CLOSED:
            return Samples(0)
        return self._conversation.gate.unprocessed

    def receive_message(self, message: protocol.ClientMessage) -> list[Effect]:
        """A message, audio included. Raises SessionError."""
        match message:
            case protocol.Audio(pcm=pcm):
                return self._receive_audio(self._started("audio"), pcm)
            case protocol.Start():
                return self._start(message)
            case protocol.Resume():
                if self._phase is not _Phase.NEW:
                    raise AlreadyStartedError("got resume, which only opens a connection")
                raise UnsupportedError(
                    "resume: this server does not keep sessions yet; begin another with start"
                )
            case protocol.Keepalive():
                self._started("keepalive")
                return []
            case protocol.Flush():
                return self._finalise(self._started("flush"), message)
            case protocol.Stop():
                return self._finalise(self._started("stop"), message)
            case _:
                assert_never(message)

    def receive_speech(self, probabilities: Sequence[float]) -> list[Effect]:
        """Probabilities of the next VAD frames, in order."""
        if self._conversation is None or self._phase is _Phase.CLOSED:
            return []
        effects: list[Effect] = []
        for probability in probabilities:
            effects += self._conversation.gate.receive_probability(probability)
            effects += self._reach_marks(self._conversation)
        return effects + self._conversation.gate.release()

    def receive_event(self, event: EngineEvent) -> list[Effect]:
        """An event of one of this session's utterances. Raises EngineFailureError."""
        if self._conversation is None or self._phase is _Phase.CLOSED:
            return []
        self._conversation.gate.receive_event(event)
        told: list[protocol.ServerMessage] = []
        if isinstance(event, HypothesisUpdated):
            warning = self._conversation.lag.receive(event.interval)
            told += [] if warning is None else [warning]
        told += self._conversation.transcript.receive(event)
        return [*(Send(message) for message in told), *self._answer_marks(self._conversation)]

    def expire(self, limit_s: float) -> list[Effect]:
        """Neither audio nor message came for `limit_s`: finalise, say so, close."""
        return self._end(
            IdleTimeoutError(f"neither audio nor message came for {limit_s:g} s; send keepalive")
        )

    def drain(self) -> list[Effect]:
        """The server is going away: finalise, say so, close."""
        return self._end(ShuttingDownError("the server is shutting down; connect again"))

    def abort(self, error: SessionError) -> list[Effect]:
        """Give up what is open, say why, close. Does nothing where the session has ended."""
        if self._phase is _Phase.CLOSED:
            return []
        return [*self.drop(), Send(error.to_message()), Close(error.close_code, error.code)]

    def drop(self) -> list[Effect]:
        """The connection is gone: give up what is open."""
        self._phase = _Phase.CLOSED
        return [] if self._conversation is None else self._conversation.gate.cancel()

    def _started(self, what: str) -> _Conversation:
        if self._conversation is None:
            raise NotStartedError(f"got {what}, the first message must be start")
        return self._conversation

    def _start(self, start: protocol.Start) -> list[Effect]:
        if self._phase is not _Phase.NEW:
            raise AlreadyStartedError("got start again; a session is started once")
        options = _options_of(start, self._model)
        transcript = Transcript(word_timestamps=start.word_timestamps)

        def open_utterance() -> UtteranceId:
            utterance_id = self._new_utterance_id()
            transcript.open(utterance_id)
            return utterance_id

        speech = Endpointer(start.vad_threshold, samples_from_ms(start.endpoint_silence_ms))
        self._conversation = _Conversation(
            sample_rate=start.sample_rate,
            decoder=PcmDecoder(start.sample_rate, start.encoding, start.channels),
            gate=SpeechGate(speech, options, open_utterance),
            transcript=transcript,
            lag=LagNotice(options.interim_interval),
        )
        self._phase = _Phase.OPEN
        ready = protocol.Ready(
            session=self.session_id,
            token=self._token,
            model=self._model.name,
            resume_window_s=RESUME_WINDOW_S,
        )
        return [Send(ready)]

    def _receive_audio(self, conversation: _Conversation, pcm: bytes) -> list[Effect]:
        if self._phase is not _Phase.OPEN:
            return []  # sent before the client knew of the end
        decoder, rate = conversation.decoder, conversation.sample_rate
        limit = protocol.MAX_CHUNK_S * decoder.bytes_per_second
        if len(pcm) > limit:
            raise MessageTooLargeError(
                f"audio: got {len(pcm)} bytes in one message, "
                f"takes at most {protocol.MAX_CHUNK_S} s, which is {limit} bytes"
            )
        seconds_before = decoder.samples_received // rate
        effects = conversation.gate.receive_audio(decoder.decode(pcm))
        seconds = decoder.samples_received // rate
        if seconds > seconds_before:
            # A whole number of seconds, so that acks too are the same for any chunking.
            effects.append(Send(protocol.Ack(samples_received=seconds * rate)))
        return effects

    def _end(self, error: SessionError) -> list[Effect]:
        if self._conversation is None:
            return self.abort(error)
        return self._finalise(self._conversation, error)

    def _finalise(
        self, conversation: _Conversation, cause: protocol.Flush | protocol.Stop | SessionError
    ) -> list[Effect]:
        if self._phase is not _Phase.OPEN:
            return []  # everything is being finalised already; a late request must not cost it
        if not isinstance(cause, protocol.Flush):
            self._phase = _Phase.ENDING
        effects = conversation.gate.receive_audio(conversation.decoder.flush())
        self._marks.append(_Mark(conversation.gate.received, cause))
        return [*effects, *self._reach_marks(conversation)]

    def _reach_marks(self, conversation: _Conversation) -> list[Effect]:
        gate = conversation.gate
        effects: list[Effect] = []
        while self._marks and frame_floor(self._marks[0].at) <= gate.scored:
            mark = self._marks.popleft()
            effects += gate.cut(mark.at)
            self._reached.append((mark, gate.newest))
        return effects + self._answer_marks(conversation)

    def _answer_marks(self, conversation: _Conversation) -> list[Effect]:
        effects: list[Effect] = []
        while self._reached:
            mark, newest = self._reached[0]
            if newest is not None and not conversation.transcript.is_settled(newest):
                break
            self._reached.popleft()
            effects += self._answer(mark, conversation.transcript.num_segments)
        return effects

    def _answer(self, mark: _Mark, num_segments: int) -> list[Effect]:
        at = seconds_from_samples(mark.at)
        match mark.cause:
            case protocol.Flush(id=flush_id):
                return [Send(protocol.Flushed(id=flush_id, at=at))]
            case protocol.Stop():
                self._phase = _Phase.CLOSED
                done = protocol.Done(audio_s=at, segments=num_segments)
                return [Send(done), Close(protocol.CLOSE_DONE, "done")]
            case SessionError() as error:
                return self.abort(error)


def _options_of(start: protocol.Start, model: ModelInfo) -> UtteranceOptions:
    """What the engine is asked for. Raises UnsupportedError for what is not there."""
    languages = tuple(start.languages or ())
    _require_known("encoding", start.encoding, ENCODINGS)
    _require_known("task", start.task, model.tasks)
    if start.language is not None:
        _require_known("language", start.language, model.languages)
    for code in languages:
        _require_known("languages", code, model.languages)
    return UtteranceOptions(
        language=start.language,
        languages=languages,
        task=cast(Task, start.task),  # one of model.tasks
        prompt=start.prompt,
        interim_results=start.interim_results,
        append_only=start.append_only,
        interim_interval=samples_from_ms(start.interim_interval_ms),
        max_segment=samples_from_seconds(start.max_segment_s),
        word_timestamps=start.word_timestamps,
    )


def _require_known(field: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UnsupportedError(
            f"start.{field}: got {value!r}, this server and model take {', '.join(known)}"
        )
