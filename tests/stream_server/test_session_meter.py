"""The figures of one session, from the effects that a session would decide."""

import json

import numpy as np
import pytest

from engine.audio.units import SAMPLE_RATE, Samples
from engine.events import (
    AppendAudio,
    FinishUtterance,
    OpenUtterance,
    UtteranceId,
    UtteranceOptions,
)
from stream_server import protocol
from stream_server.effects import Close, Effect, Score, Send, Submit
from stream_server.endpointer import VAD_FRAME_SAMPLES
from stream_server.session_meter import LOOK_BACK, SessionMeter
from stream_server.totals import Totals

FRAME_S = VAD_FRAME_SAMPLES / SAMPLE_RATE
READY = protocol.Ready(session="s", token="secret", model="m", resume_window_s=0)


def score(num_frames: int) -> Score:
    return Score(np.zeros((num_frames, VAD_FRAME_SAMPLES), np.float32))


def final(start: float, end: float, language: str = "en") -> Send:
    return Send(
        protocol.Final(
            segment=0,
            start=start,
            end=end,
            text="hello",
            language=language,
            language_probability=1,
            confidence=1,
            no_speech_prob=0,
        )
    )


def partial(end: float) -> Send:
    return Send(
        protocol.Partial(
            segment=0,
            revision=1,
            start=0,
            end=end,
            text="hello",
            stable_text="",
            stable_end=0,
            language="en",
        )
    )


def stopped(at: float) -> Send:
    return Send(protocol.SpeechStopped(at=at))


class Desk:
    """A meter, and the totals it adds to."""

    def __init__(self) -> None:
        self.totals = Totals()
        self.meter = SessionMeter(self.totals)

    def perform(self, *effects: Effect, now: float = 0.0, unprocessed: int = 0) -> None:
        self.meter.perform(effects, Samples(unprocessed), now)

    def hear(self, seconds: float, delay: float, unprocessed: int = 0) -> None:
        """Audio in real time, each frame arriving `delay` after it was said."""
        for number in range(round(seconds / FRAME_S)):
            now = (number + 1) * FRAME_S + delay
            self.perform(score(1), now=now, unprocessed=unprocessed)

    def figure(self, name: str) -> object:
        return self.meter.figures()[name]


def test_audio_is_what_was_scored_and_speech_what_the_engine_got() -> None:
    desk = Desk()
    utterance_id = UtteranceId(1)
    desk.perform(score(2), score(3))
    desk.perform(Submit(OpenUtterance(utterance_id, Samples(0), UtteranceOptions())))
    desk.perform(Submit(AppendAudio(utterance_id, np.zeros(800, np.float32))))
    desk.perform(Submit(FinishUtterance(utterance_id)))
    assert (desk.figure("audio_s"), desk.figure("speech_s")) == (0.16, 0.05)
    assert desk.figure("utterances") == 1
    assert (desk.totals.audio, desk.totals.speech) == (5 * VAD_FRAME_SAMPLES, 800)


def test_a_final_is_timed_from_the_arrival_of_the_last_speech_in_it() -> None:
    desk = Desk()
    desk.hear(3.2, delay=100.0)
    desk.perform(stopped(1.6), now=103.0)
    desk.perform(final(0.0, 1.8), now=102.25)
    # The frame that ends at 1.6 s came at 101.6.
    assert desk.figure("final_latency_p50_ms") == desk.figure("final_latency_max_ms") == 650
    assert desk.totals.final_latency.count == 1
    assert desk.totals.final_latency.sum == pytest.approx(0.65)


def test_the_last_speech_came_with_the_frame_that_it_lies_in() -> None:
    desk = Desk()
    desk.perform(score(1), now=1.0)
    desk.perform(score(1), now=2.0)
    desk.perform(score(1), now=4.0)
    desk.perform(stopped(1.5 * FRAME_S), now=5.0)
    desk.perform(final(0.0, 1.5 * FRAME_S), now=5.0)
    assert desk.figure("final_latency_max_ms") == 3000


def test_speech_that_a_flush_ends_within_a_frame_came_with_the_newest() -> None:
    desk = Desk()
    desk.perform(score(1), now=1.0)
    desk.perform(stopped(1.5 * FRAME_S), final(0.0, 1.5 * FRAME_S), now=1.5)
    assert desk.figure("final_latency_max_ms") == 500


def test_a_segment_cut_out_of_longer_speech_is_not_timed() -> None:
    desk = Desk()
    desk.hear(9.6, delay=0.0)
    desk.perform(final(0.0, 4.0), now=9.6)
    assert desk.figure("final_latency_p50_ms") is None
    desk.perform(stopped(8.0), now=9.6)
    desk.perform(final(4.0, 6.0), now=9.7)
    assert desk.figure("final_latency_p50_ms") is None
    desk.perform(final(6.0, 8.2), now=10.0)
    assert desk.figure("final_latency_p50_ms") == 2000
    assert desk.figure("segments") == 3


def test_speech_without_words_is_not_timed_by_the_next_final() -> None:
    desk = Desk()
    desk.hear(6.4, delay=0.0)
    desk.perform(stopped(1.6), stopped(4.8), now=6.4)
    desk.perform(final(3.2, 5.0), now=6.4)
    assert desk.totals.final_latency.count == 1
    assert desk.figure("final_latency_max_ms") == 1600


def test_the_median_and_the_largest_latency_are_kept() -> None:
    desk = Desk()
    desk.hear(6.4, delay=0.0)
    for number, late in enumerate((0.5, 0.9, 0.6)):
        at = 1.6 * (number + 1)
        desk.perform(stopped(at), now=at)
        desk.perform(final(at - 1, at), now=at + late)
    assert (desk.figure("final_latency_p50_ms"), desk.figure("final_latency_max_ms")) == (600, 900)


def test_arrivals_are_kept_as_far_back_as_speech_may_be_found_to_end() -> None:
    """A server that is 9.6 s behind, and a client whose endpoint silence is the longest."""
    desk = Desk()
    behind = round(9.6 * SAMPLE_RATE)
    desk.hear(32.0, delay=0.0, unprocessed=behind)
    position = round(32.0 * SAMPLE_RATE) - behind - LOOK_BACK
    at, arrived_at = position / SAMPLE_RATE, -(-position // VAD_FRAME_SAMPLES) * FRAME_S
    desk.perform(stopped(at), now=40.0)
    desk.perform(final(at - 1, at), now=40.0)
    assert desk.figure("final_latency_max_ms") == round(1000 * (40.0 - arrived_at))


def test_no_more_arrivals_are_kept_than_that() -> None:
    desk = Desk()
    desk.hear(32.0, delay=0.0)
    assert len(desk.meter._arrivals) == LOOK_BACK // VAD_FRAME_SAMPLES + 1


def test_a_partial_lags_behind_the_audio_received() -> None:
    desk = Desk()
    desk.hear(3.2, delay=0.0)
    desk.perform(partial(2.0))
    desk.perform(partial(3.3))  # of audio that has not filled a VAD frame
    assert desk.figure("partials") == 2
    assert desk.totals.partial_lag.count == 2
    assert desk.totals.partial_lag.sum == pytest.approx(1.2)


def test_warnings_and_errors_are_counted() -> None:
    desk = Desk()
    lagging = protocol.WarningMessage(code="lagging", message="m", interim_interval_ms=800)
    error = protocol.ErrorMessage(code="idle_timeout", message="m")
    desk.perform(Send(lagging), Send(error))
    assert desk.figure("warnings") == 1
    assert {code for code, count in desk.totals.errors.items() if count} == {"idle_timeout"}


def test_bytes_are_counted_both_ways_and_messages_by_type_as_they_leave() -> None:
    desk = Desk()
    desk.meter.receive(640)
    desk.meter.receive(640)
    desk.perform(Send(READY))
    assert desk.totals.messages["ready"] == 0
    desk.meter.send(READY, 99)
    assert desk.totals.messages["ready"] == 1
    assert (desk.figure("received_bytes"), desk.figure("sent_bytes")) == (1280, 99)
    assert (desk.totals.received_bytes, desk.totals.sent_bytes) == (1280, 99)


def test_a_session_has_started_once_it_is_told_so() -> None:
    desk = Desk()
    assert not desk.meter.has_started
    desk.perform(Send(READY))
    assert desk.meter.has_started


def test_how_it_closed_is_what_the_server_said_else_what_the_client_did() -> None:
    desk = Desk()
    desk.meter.leave(1006, "")
    assert (desk.figure("close_code"), desk.figure("close_reason")) == (1006, "the client left")
    closed = Desk()
    closed.perform(Close(1000, "done"))
    closed.meter.leave(1000, "bye")
    assert (closed.figure("close_code"), closed.figure("close_reason")) == (1000, "done")


def test_sessions_share_the_totals_and_nothing_else() -> None:
    totals = Totals()
    one, other = SessionMeter(totals), SessionMeter(totals)
    for meter in (one, other):
        meter.perform([score(1)], Samples(0), 0.0)
    assert totals.audio == 2 * VAD_FRAME_SAMPLES
    assert one.figures()["audio_s"] == round(FRAME_S, 2)


def test_figures_are_fit_for_a_log() -> None:
    desk = Desk()
    desk.perform(Send(READY), final(0, 1, language="de"))
    told = json.dumps(desk.meter.figures())
    assert "secret" not in told
    assert "hello" not in told
    assert desk.figure("language") == "de"
