import numpy as np

from engine.audio.units import Samples
from engine.events import (
    AppendAudio,
    CancelUtterance,
    EngineEvent,
    FinishUtterance,
    OpenUtterance,
    UtteranceFinished,
    UtteranceOptions,
)
from stream_server.connection import Engine
from stream_server.server_bench_parts import NullEngine, time_codecs, time_pcm, time_session

CHUNKS = [bytes(640)] * 50


def test_an_utterance_is_finished_once_it_has_ended_and_never_when_it_was_cancelled() -> None:
    engine: Engine = NullEngine()
    told: list[EngineEvent] = []
    ended, cancelled = engine.new_utterance_id(), engine.new_utterance_id()
    assert ended != cancelled
    for utterance_id in (ended, cancelled):
        engine.open(OpenUtterance(utterance_id, Samples(0), UtteranceOptions()), told.append)
        engine.submit(AppendAudio(utterance_id, np.zeros(800, np.float32)))
    assert told == []
    engine.submit(CancelUtterance(cancelled))
    engine.submit(FinishUtterance(ended))
    engine.submit(CancelUtterance(ended))
    assert told == [UtteranceFinished(ended)]


def test_both_subprotocols_are_timed() -> None:
    told = time_codecs(CHUNKS)
    assert set(told) == {"asr.json.v1", "asr.msgpack.v1"}
    assert all(us > 0 for us in told.values())


def test_a_session_is_timed_with_speech_in_it() -> None:
    audio_us, scores_us = time_session(CHUNKS, np.ones(10, np.float32))
    assert audio_us > 0
    assert scores_us > 0
    assert time_pcm(CHUNKS) > 0
