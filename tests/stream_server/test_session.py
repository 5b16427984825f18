from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audio.units import SAMPLE_RATE, Samples, samples_from_ms
from engine.events import (
    AppendAudio,
    CancelUtterance,
    EngineEvent,
    FinishUtterance,
    ModelInfo,
    OpenUtterance,
    PauseUtterance,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
    UtteranceOptions,
)
from stream_server import protocol
from stream_server.effects import Close, Effect, Score, Send, Submit
from stream_server.errors import (
    AlreadyStartedError,
    BadMessageError,
    EngineFailureError,
    MessageTooLargeError,
    NotStartedError,
    ShuttingDownError,
    UnsupportedError,
)
from stream_server.session import Session
from tests.support.engine_events import closed, updated
from tests.support.scripted_detector import loudness_scores
from tests.support.sounds import s16le, silence, tone

MODEL = ModelInfo(name="memory", languages=("de", "en"), tasks=("transcribe",))


@dataclass
class Given:
    """What the engine was given of one utterance."""

    start: Samples
    options: UtteranceOptions
    audio: bytes = b""
    marks: list[tuple[str, int]] = field(default_factory=list)  # command and bytes given before

    @property
    def end(self) -> int:
        return self.start + len(self.audio) // 4


class Driver:
    """Performs a session's effects. The detector lags by a set number of answers; the engine
    answers at once, unless it is held."""

    def __init__(self, *, lag: int = 0, hold_engine: bool = False) -> None:
        ids = count(1)
        self.session = Session("session", "token", MODEL, lambda: UtteranceId(next(ids)))
        self.lag = lag
        self.hold_engine = hold_engine
        self.sent: list[protocol.ServerMessage] = []
        self.close: Close | None = None
        self.given: dict[UtteranceId, Given] = {}
        self._scores: deque[Sequence[float]] = deque()
        self._events: deque[EngineEvent] = deque()

    def do(self, message: protocol.ClientMessage) -> None:
        self.perform(self.session.receive_message(message))

    def start(self, **fields: Any) -> None:
        self.do(protocol.Start(**fields))

    def send_audio(self, pcm: bytes, chunk_bytes: int = 640) -> None:
        for at in range(0, len(pcm), chunk_bytes):
            self.do(protocol.Audio(pcm=pcm[at : at + chunk_bytes]))

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(message=message):
                    self.sent.append(message)
                case Score(frames=frames):
                    self._scores.append(loudness_scores(frames).tolist())
                case Submit():
                    self._take(effect)
                case Close():
                    self.close = effect
        while self._events and not self.hold_engine:
            self.perform(self.session.receive_event(self._events.popleft()))
        self.deliver(keep=self.lag)

    def deliver(self, keep: int = 0) -> None:
        while len(self._scores) > keep:
            self.perform(self.session.receive_speech(self._scores.popleft()))

    def let_engine_go(self) -> None:
        self.hold_engine = False
        self.perform([])

    def _take(self, effect: Submit) -> None:
        match effect.command:
            case OpenUtterance(utterance_id=utterance_id, start=start, options=options):
                self.given[utterance_id] = Given(start, options)
            case AppendAudio(utterance_id=utterance_id, samples=samples):
                self.given[utterance_id].audio += samples.tobytes()
            case (
                PauseUtterance(utterance_id=utterance_id)
                | CancelUtterance(utterance_id=utterance_id)
            ):
                self._mark(utterance_id, type(effect.command).__name__)
            case FinishUtterance(utterance_id=utterance_id):
                self._mark(utterance_id, "FinishUtterance")
                given = self.given[utterance_id]
                text = f"{len(given.audio)} bytes"
                self._events += [
                    closed(utterance_id, text, start=given.start, end=given.end),
                    UtteranceFinished(utterance_id),
                ]

    def _mark(self, utterance_id: UtteranceId, name: str) -> None:
        given = self.given[utterance_id]
        given.marks.append((name, len(given.audio)))

    def kinds(self) -> list[str]:
        return [type(m).__name__ for m in self.sent if not isinstance(m, protocol.Ack)]


# --- the order of messages --------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        protocol.Audio(pcm=b""),
        protocol.Flush(),
        protocol.Keepalive(),
        protocol.Stop(),
    ],
)
def test_nothing_but_start_opens_a_session(message: protocol.ClientMessage) -> None:
    with pytest.raises(NotStartedError, match="the first message must be start"):
        Driver().do(message)


def test_a_session_is_started_once() -> None:
    driver = Driver()
    driver.start()
    with pytest.raises(AlreadyStartedError):
        driver.start()
    with pytest.raises(AlreadyStartedError):
        driver.do(protocol.Resume(session="a", token="b", last_seq=0))


def test_resuming_is_not_supported_yet() -> None:
    with pytest.raises(UnsupportedError, match="does not keep sessions yet"):
        Driver().do(protocol.Resume(session="a", token="b", last_seq=0))


def test_start_is_answered_by_ready() -> None:
    driver = Driver()
    driver.start()
    assert driver.sent == [
        protocol.Ready(session="session", token="token", model="memory", resume_window_s=0)
    ]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"encoding": "opus"}, "start.encoding: got 'opus'.* pcm_s16le, pcm_f32le, mulaw, alaw"),
        ({"language": "fr"}, "start.language: got 'fr'.* de, en"),
        ({"language": "en-US"}, "start.language: got 'en-US'.* de, en"),
        ({"language": "EN"}, "start.language: got 'EN'.* de, en"),
        ({"languages": ["en", "fr"]}, "start.languages: got 'fr'.* de, en"),
        ({"task": "translate"}, "start.task: got 'translate'.* transcribe"),
        ({"task": "summarise"}, "start.task: got 'summarise'"),
    ],
)
def test_what_the_model_does_not_have_is_named_with_what_it_has(
    fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UnsupportedError, match=sentence):
        Driver().start(**fields)


def test_the_options_of_start_reach_the_engine() -> None:
    driver = Driver()
    driver.start(
        language="de",
        languages=["de", "en"],
        prompt="Starling",
        interim_results=False,
        append_only=False,
        interim_interval_ms=1000,
        word_timestamps=True,
        max_segment_s=12.5,
    )
    driver.send_audio(s16le(tone(1)))
    assert driver.given[UtteranceId(1)].options == UtteranceOptions(
        language="de",
        languages=("de", "en"),
        prompt="Starling",
        interim_results=False,
        append_only=False,
        interim_interval=samples_from_ms(1000),
        max_segment=Samples(200_000),
        word_timestamps=True,
    )


def test_defaults_ask_for_what_the_engine_does_by_default() -> None:
    driver = Driver()
    driver.start()
    driver.send_audio(s16le(tone(1)))
    assert driver.given[UtteranceId(1)].options == UtteranceOptions()


# --- audio ------------------------------------------------------------------------------------


def test_more_than_a_second_in_one_message_is_too_large() -> None:
    driver = Driver()
    driver.start(sample_rate=8000, encoding="mulaw")
    driver.do(protocol.Audio(pcm=bytes(8000)))
    with pytest.raises(MessageTooLargeError, match=r"got 8001 bytes.* 1 s, which is 8000 bytes"):
        driver.do(protocol.Audio(pcm=bytes(8001)))


def test_audio_that_is_not_finite_is_a_bad_message() -> None:
    driver = Driver()
    driver.start(encoding="pcm_f32le")
    with pytest.raises(BadMessageError, match="audio: got the sample nan"):
        driver.do(protocol.Audio(pcm=np.array([np.nan], "<f4").tobytes()))


def test_every_second_of_the_clients_own_samples_is_acknowledged() -> None:
    driver = Driver()
    driver.start(sample_rate=48_000, channels=2)
    driver.send_audio(bytes(48_000 * 4 * 5 // 2), chunk_bytes=7777)
    acks = [m.samples_received for m in driver.sent if isinstance(m, protocol.Ack)]
    assert acks == [48_000, 96_000]


def test_speech_is_told_transcribed_and_ended() -> None:
    driver = Driver()
    driver.start()
    driver.send_audio(s16le(np.concatenate([silence(0.512), tone(1.024), silence(1)])))
    assert driver.kinds() == ["Ready", "SpeechStarted", "SpeechStopped", "Final"]
    started, stopped, final = (m for m in driver.sent[1:] if not isinstance(m, protocol.Ack))
    assert isinstance(started, protocol.SpeechStarted)
    assert isinstance(stopped, protocol.SpeechStopped)
    assert isinstance(final, protocol.Final)
    assert (started.at, stopped.at) == (0.512, 1.536)
    assert final.start == pytest.approx(0.512 - 0.3)
    assert final.end == pytest.approx(1.536 + 0.2)


# --- flush and stop ---------------------------------------------------------------------------


def test_a_flush_is_answered_even_where_nothing_was_pending() -> None:
    driver = Driver()
    driver.start()
    driver.do(protocol.Flush(id="a"))
    driver.send_audio(s16le(silence(1.01)))
    driver.do(protocol.Flush(id=2))
    flushed = [m for m in driver.sent if isinstance(m, protocol.Flushed)]
    assert flushed == [protocol.Flushed(id="a", at=0), protocol.Flushed(id=2, at=1.01)]


def test_a_flush_waits_for_the_finals_of_the_audio_before_it() -> None:
    driver = Driver(hold_engine=True)
    driver.start()
    driver.send_audio(s16le(tone(1.01)))
    driver.do(protocol.Flush())
    driver.send_audio(s16le(tone(1)))
    assert "Flushed" not in driver.kinds()
    driver.let_engine_go()
    assert driver.kinds() == [
        "Ready",
        "SpeechStarted",
        "SpeechStopped",
        "SpeechStarted",
        "Final",
        "Flushed",
    ]
    assert driver.given[UtteranceId(1)].end == driver.given[UtteranceId(2)].start == 16_160


def test_a_flush_waits_for_the_detector_too() -> None:
    driver = Driver(lag=1000)
    driver.start()
    driver.send_audio(s16le(tone(1)))
    driver.do(protocol.Flush())
    assert driver.kinds() == ["Ready"]
    driver.deliver()
    assert driver.kinds() == ["Ready", "SpeechStarted", "SpeechStopped", "Final", "Flushed"]


def test_stop_brings_every_final_then_done_then_the_close() -> None:
    driver = Driver(lag=3, hold_engine=True)
    driver.start()
    driver.send_audio(s16le(np.concatenate([tone(1), silence(1), tone(1.25)])))
    driver.do(protocol.Stop())
    driver.deliver()
    assert driver.close is None
    driver.let_engine_go()
    assert driver.kinds()[-3:] == ["Final", "Final", "Done"]
    assert driver.sent[-1] == protocol.Done(audio_s=3.25, segments=2)
    assert driver.close == Close(1000, "done")
    assert driver.given[UtteranceId(2)].end == 52_000


def test_what_follows_stop_is_ignored() -> None:
    driver = Driver(hold_engine=True)
    driver.start()
    driver.send_audio(s16le(tone(1)))
    driver.do(protocol.Stop())
    for message in (protocol.Audio(pcm=bytes(640)), protocol.Flush(), protocol.Keepalive()):
        driver.do(message)
    driver.do(protocol.Stop())
    driver.let_engine_go()
    assert driver.kinds()[-2:] == ["Final", "Done"]
    assert driver.session.is_ending


def test_silence_alone_ends_without_a_segment() -> None:
    driver = Driver()
    driver.start()
    driver.send_audio(s16le(silence(2)))
    driver.do(protocol.Stop())
    assert driver.kinds() == ["Ready", "Done"]
    assert driver.sent[-1] == protocol.Done(audio_s=2, segments=0)


# --- other endings ----------------------------------------------------------------------------


def test_an_idle_session_is_finalised_before_it_is_closed() -> None:
    driver = Driver()
    driver.start()
    driver.send_audio(s16le(tone(1)))
    driver.perform(driver.session.expire(60))
    assert driver.kinds()[-2:] == ["Final", "ErrorMessage"]
    error = driver.sent[-1]
    assert isinstance(error, protocol.ErrorMessage)
    assert (error.code, error.fatal) == ("idle_timeout", True)
    assert "60 s" in error.message
    assert driver.close == Close(1008, "idle_timeout")


def test_a_drained_session_is_finalised_before_it_is_closed() -> None:
    driver = Driver()
    driver.start()
    driver.send_audio(s16le(tone(1)))
    driver.perform(driver.session.drain())
    assert driver.kinds()[-2:] == ["Final", "ErrorMessage"]
    assert driver.close == Close(1012, "shutting_down")


def test_a_connection_without_start_is_closed_at_once() -> None:
    driver = Driver()
    driver.perform(driver.session.drain())
    assert driver.kinds() == ["ErrorMessage"]
    assert driver.close == Close(1012, "shutting_down")


def test_a_drain_leaves_a_stop_its_done() -> None:
    driver = Driver(hold_engine=True)
    driver.start()
    driver.send_audio(s16le(tone(1)))
    driver.do(protocol.Stop())
    driver.perform(driver.session.drain())
    driver.let_engine_go()
    assert driver.kinds()[-1] == "Done"
    assert driver.close == Close(1000, "done")


def test_an_aborted_session_cancels_its_utterances_and_then_hears_nothing() -> None:
    driver = Driver(hold_engine=True)
    driver.start()
    driver.send_audio(s16le(np.concatenate([tone(1), silence(1), tone(1)])))
    driver.perform(driver.session.abort(ShuttingDownError("now")))
    assert [given.marks[-1][0] for given in driver.given.values()] == ["CancelUtterance"] * 2
    assert driver.close == Close(1012, "shutting_down")
    before = list(driver.sent)
    driver.let_engine_go()
    driver.perform(driver.session.receive_speech([1.0] * 100))
    driver.perform(driver.session.abort(ShuttingDownError("again")))
    assert driver.sent == before
    assert driver.session.unprocessed == 0


def test_a_dropped_connection_cancels_and_says_nothing() -> None:
    driver = Driver(hold_engine=True)
    driver.start()
    driver.send_audio(s16le(tone(1)))
    effects = driver.session.drop()
    assert effects == [Submit(CancelUtterance(UtteranceId(1)))]
    assert driver.session.drop() == []


def test_a_failed_utterance_fails_the_session() -> None:
    driver = Driver(hold_engine=True)
    driver.start()
    driver.send_audio(s16le(tone(1)))
    with pytest.raises(EngineFailureError, match="out of memory"):
        driver.session.receive_event(UtteranceFailed(UtteranceId(1), "out of memory"))


def test_partials_are_told_as_they_come() -> None:
    driver = Driver(hold_engine=True)
    driver.start()
    driver.send_audio(s16le(tone(1)))
    driver.perform(driver.session.receive_event(updated(1, "hello wor", "hello")))
    partial = driver.sent[-1]
    assert isinstance(partial, protocol.Partial)
    assert (partial.text, partial.stable_text) == ("hello wor", "hello")


def test_audio_in_flight_is_unprocessed() -> None:
    driver = Driver(lag=10_000)
    assert driver.session.unprocessed == 0
    driver.start()
    driver.send_audio(s16le(tone(3)))
    assert driver.session.unprocessed == 3 * SAMPLE_RATE


# --- any chunking of the same bytes gives the same events -------------------------------------

stretches = st.lists(
    st.tuples(st.sampled_from(["tone", "silence"]), st.sampled_from([0.03, 0.1, 0.25, 0.6, 0.9])),
    min_size=1,
    max_size=6,
)
formats = st.sampled_from(
    [
        {"sample_rate": 16_000, "encoding": "pcm_s16le", "channels": 1},
        {"sample_rate": 48_000, "encoding": "pcm_s16le", "channels": 2},
        {"sample_rate": 8_000, "encoding": "pcm_s16le", "channels": 1},
    ]
)


def history(pcm: bytes, form: dict[str, Any], flushes: list[int], cuts: list[int], lag: int) -> Any:
    """Everything a client and the engine see. Finals and acks are kept apart: when they come
    between the others depends on time, what they say must not."""
    driver = Driver(lag=lag)
    driver.start(**form, endpoint_silence_ms=300)
    limit = form["sample_rate"] * form["channels"] * 2
    places = sorted({0, *flushes, *cuts, *range(0, len(pcm), limit), len(pcm)})
    for begin, end in pairwise(places):
        if begin in flushes:
            driver.do(protocol.Flush(id=begin))
        driver.do(protocol.Audio(pcm=pcm[begin:end]))
    driver.do(protocol.Stop())
    driver.deliver()
    finals = [m for m in driver.sent if isinstance(m, protocol.Final)]
    acks = [m for m in driver.sent if isinstance(m, protocol.Ack)]
    others = [m for m in driver.sent if not isinstance(m, protocol.Final | protocol.Ack)]
    return others, finals, acks, driver.given, driver.close


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    stretches,
    formats,
    st.lists(st.floats(0, 1), max_size=3),
    st.lists(st.floats(0, 1), max_size=40),
    st.sampled_from([0, 1, 7, 10_000]),
)
def test_any_chunking_and_any_delay_of_the_detector_give_the_same_history(
    parts: list[tuple[str, float]],
    form: dict[str, Any],
    flushes: list[float],
    cuts: list[float],
    lag: int,
) -> None:
    rate = form["sample_rate"]
    sound = np.concatenate(
        [tone(length, rate) * (1 if kind == "tone" else 0) for kind, length in parts]
    )
    pcm = s16le(np.repeat(sound, form["channels"]))
    flush_places = sorted({int(share * len(pcm)) for share in flushes})
    plain = history(pcm, form, flush_places, [], 0)
    chunked = history(pcm, form, flush_places, [int(share * len(pcm)) for share in cuts], lag)
    assert chunked == plain


@settings(deadline=None, derandomize=True, max_examples=50)
@given(stretches, st.lists(st.floats(0, 1), max_size=3))
def test_no_sample_is_given_twice_and_none_of_the_speech_is_lost(
    parts: list[tuple[str, float]], flushes: list[float]
) -> None:
    sound = np.concatenate(
        [tone(length) if kind == "tone" else silence(length) for kind, length in parts]
    )
    pcm = s16le(sound)
    form = {"sample_rate": 16_000, "encoding": "pcm_s16le", "channels": 1}
    flush_places = sorted({int(share * len(pcm)) for share in flushes})
    told, finals, _, given, _ = history(pcm, form, flush_places, [], 0)

    received = np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
    covered = np.zeros(len(received), bool)
    for one in given.values():
        span = slice(one.start, one.end)
        assert not covered[span].any()
        covered[span] = True
        assert np.array_equal(np.frombuffer(one.audio, np.float32), received[span])
    speaking: float | None = None
    for message in told:
        if isinstance(message, protocol.SpeechStarted):
            assert speaking is None
            speaking = message.at
        elif isinstance(message, protocol.SpeechStopped):
            assert speaking is not None
            assert covered[round(speaking * 16_000) : round(message.at * 16_000)].all()
            speaking = None
    assert speaking is None
    assert len(finals) == len(given)
