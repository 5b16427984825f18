"""The parts of taking an audio message that are plain calls, each timed over and over.

And the engine of `starling bench server`, which takes commands and computes nothing.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE
from engine.events import (
    AppendAudio,
    CancelUtterance,
    EngineEvent,
    FinishUtterance,
    ModelInfo,
    OpenUtterance,
    PauseUtterance,
    UtteranceFinished,
    UtteranceId,
)
from engine.metrics import EngineMetrics
from stream_server.effects import Score
from stream_server.pcm import PcmDecoder
from stream_server.protocol import Audio, JsonCodec, MsgpackCodec, Start
from stream_server.session import Session

TIMED_CALLS: Final = 20_000  # of each part: a tenth of a second, steady to a few per cent


class NullEngine:
    """Takes commands; an utterance that ends is finished at once. Of one thread."""

    def __init__(self) -> None:
        self.info = ModelInfo("null", ("en",), ("transcribe",))
        self.metrics = EngineMetrics()
        self._ids = itertools.count(1)
        self._listeners: dict[UtteranceId, Callable[[EngineEvent], None]] = {}

    def new_utterance_id(self) -> UtteranceId:
        """An id never given before."""
        return UtteranceId(next(self._ids))

    def open(self, command: OpenUtterance, listener: Callable[[EngineEvent], None]) -> None:
        """Remember whom to tell of the end."""
        self._listeners[command.utterance_id] = listener

    def submit(
        self, command: AppendAudio | PauseUtterance | FinishUtterance | CancelUtterance
    ) -> None:
        """Take it."""
        if isinstance(command, FinishUtterance):
            self._listeners.pop(command.utterance_id)(UtteranceFinished(command.utterance_id))

    def on_failure(self, callback: Callable[[Exception], None]) -> None:
        """Nothing here can fail."""


def time_codecs(chunks: Sequence[bytes]) -> dict[str, float]:
    """Microseconds to read a message of audio, by the subprotocol."""
    codecs = (JsonCodec(), MsgpackCodec())
    return {
        codec.subprotocol: _timed(
            codec.decode_client, [codec.encode(Audio(pcm=chunk)) for chunk in chunks]
        )
        for codec in codecs
    }


def time_pcm(chunks: Sequence[bytes]) -> float:
    """Microseconds to turn a message's bytes into samples."""
    return _timed(PcmDecoder(SAMPLE_RATE, "pcm_s16le", 1).decode, chunks)


def time_session(chunks: Sequence[bytes], scores: NDArray[np.float32]) -> tuple[float, float]:
    """Microseconds a message for a session to take audio, PCM included, and to take its scores.

    `scores` are those of the VAD frames that the chunks make up, repeated as they are.
    """
    engine = NullEngine()
    session = Session("s", "t", engine.info, engine.new_utterance_id)
    session.receive_message(Start())
    speech = itertools.cycle(scores.tolist())
    audio_ns, scores_ns = 0, 0
    for chunk in itertools.islice(itertools.cycle(chunks), TIMED_CALLS):
        message = Audio(pcm=chunk)
        began = time.perf_counter_ns()
        effects = session.receive_message(message)
        audio_ns += time.perf_counter_ns() - began
        for effect in effects:
            if isinstance(effect, Score):
                scored = list(itertools.islice(speech, len(effect.frames)))
                began = time.perf_counter_ns()
                session.receive_speech(scored)
                scores_ns += time.perf_counter_ns() - began
    return audio_ns / 1000 / TIMED_CALLS, scores_ns / 1000 / TIMED_CALLS


def _timed(call: Callable[[Any], object], values: Sequence[Any]) -> float:
    given = list(itertools.islice(itertools.cycle(values), TIMED_CALLS))
    began = time.perf_counter_ns()
    for value in given:
        call(value)
    return (time.perf_counter_ns() - began) / 1000 / TIMED_CALLS
