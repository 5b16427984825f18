from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import SAMPLE_RATE, Samples, samples_from_ms, samples_from_seconds
from engine.bench.session_plan import (
    OPTIONS,
    SHORTEST_S,
    Audio,
    Speech,
    plan_commands,
    plan_level,
    plan_speech,
    read_repeatedly,
)
from engine.events import (
    AppendAudio,
    FinishUtterance,
    OpenUtterance,
    PauseUtterance,
    UtteranceId,
)

ID = UtteranceId(7)

seeds = st.integers(0, 2**32)


@given(number=st.integers(0, 5000), seed=seeds, seconds=st.floats(1.0, 60.0))
def test_a_session_speaks_and_pauses_in_turn(number: int, seed: int, seconds: float) -> None:
    speeches = plan_speech(number, seconds, seed=seed)
    for speech in speeches:
        assert 0 <= speech.start <= seconds * SAMPLE_RATE + 1
        assert 0.79 <= (speech.end - speech.start) / SAMPLE_RATE <= 12.01
    for before, after in pairwise(speeches):
        assert after.start - before.end >= samples_from_seconds(SHORTEST_S) - 1
        # What is asked of one is over before there is anything of the next.
        assert before.finished < after.start + samples_from_ms(64)
        assert before.end + samples_from_ms(200) <= after.start - samples_from_ms(300)


def test_half_of_the_time_of_many_sessions_is_speech() -> None:
    since, until = 5 * SAMPLE_RATE, 25 * SAMPLE_RATE
    plans = [plan_speech(number, 25.0) for number in range(400)]
    lengths = [
        max(0, min(speech.end, until) - max(speech.start, since))
        for speeches in plans
        for speech in speeches
    ]
    assert sum(lengths) / (400 * (until - since)) == pytest.approx(0.5, abs=0.02)


def test_stretches_of_speech_are_about_a_sentence() -> None:
    speeches = [speech for number in range(400) for speech in plan_speech(number, 60.0)]
    seconds = [(speech.end - speech.start) / SAMPLE_RATE for speech in speeches]
    assert np.median(seconds) == pytest.approx(2.5, rel=0.05)


def test_sessions_begin_at_moments_of_their_own() -> None:
    first = sorted(plan_speech(number, 30.0)[0].start for number in range(200))
    assert len(set(first)) == 200
    # In no tenth of a second of the first six do more than a few begin.
    counts, _ = np.histogram(first, bins=60, range=(0, 6 * SAMPLE_RATE))
    assert counts.max() <= 12


def test_a_plan_follows_from_number_and_seed() -> None:
    assert plan_speech(3, 30.0, seed=1) == plan_speech(3, 30.0, seed=1)
    assert plan_speech(3, 30.0, seed=1) != plan_speech(3, 30.0, seed=2)
    assert plan_speech(3, 30.0, seed=1) != plan_speech(4, 30.0, seed=1)


@given(start=st.integers(0, 10**6), length=st.integers(samples_from_ms(800), 12 * SAMPLE_RATE))
def test_commands_are_in_order_and_audio_is_whole_and_never_early(start: int, length: int) -> None:
    speech = Speech(Samples(start), Samples(start + length))

    def read(since: Samples, until: Samples) -> Audio:
        return np.arange(since, until, dtype=np.float32)

    dues = list(plan_commands(speech, ID, read))
    assert all(before.at <= after.at for before, after in pairwise(dues))
    assert {due.command.utterance_id for due in dues} == {ID}
    first, *appended, paused, finished = dues
    begins = max(0, start - samples_from_ms(300))
    assert first.at == start + samples_from_ms(64)
    assert first.command == OpenUtterance(ID, Samples(begins), OPTIONS)
    heard = begins
    for due in appended:
        assert isinstance(due.command, AppendAudio)
        samples = due.command.samples
        assert len(samples) <= samples_from_ms(364)
        np.testing.assert_array_equal(
            samples, np.arange(heard, heard + len(samples), dtype=np.float32)
        )
        heard += len(samples)
        assert heard == due.at
    assert heard == speech.end + samples_from_ms(200) == paused.at
    assert paused.command == PauseUtterance(ID)
    assert finished.at == speech.end + samples_from_ms(500) == speech.finished
    assert finished.command == FinishUtterance(ID)


def test_a_level_has_what_each_of_its_sessions_says_in_the_order_of_time() -> None:
    audio = np.arange(5 * SAMPLE_RATE, dtype=np.float32)
    timeline = plan_level(3, 20.0, map(UtteranceId, count(10)), read_repeatedly(audio), seed=1)
    planned = [speech for number in range(3) for speech in plan_speech(number, 20.0, seed=1)]
    assert list(timeline.speeches.values()) == planned
    assert list(timeline.speeches) == list(range(10, 10 + len(planned)))
    moments = [due.at for due in timeline.dues]
    assert moments == sorted(moments)
    for utterance_id, speech in timeline.speeches.items():
        theirs = [due for due in timeline.dues if due.command.utterance_id == utterance_id]
        assert len(theirs) == len(list(plan_commands(speech, utterance_id, read_repeatedly(audio))))
        assert isinstance(theirs[0].command, OpenUtterance)
        assert theirs[-1].command == FinishUtterance(utterance_id)


@given(start=st.integers(0, 10**6), length=st.integers(1, samples_from_ms(364)))
def test_audio_that_is_over_begins_again(start: int, length: int) -> None:
    read = read_repeatedly(np.arange(1000, dtype=np.float32))
    np.testing.assert_array_equal(
        read(Samples(start), Samples(start + length)), np.arange(start, start + length) % 1000
    )
