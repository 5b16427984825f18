import json
import time
from dataclasses import replace
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.assembly import Engine, build_engine
from engine.audio.units import SAMPLE_RATE, Samples, samples_from_ms, samples_from_seconds
from engine.bench.random_checkpoint import forced_length_config, random_checkpoint, random_engine
from engine.bench.sessions import (
    OPTIONS,
    SHORTEST_S,
    Heard,
    Listener,
    Speech,
    VirtualClock,
    main,
    measure,
    plan_commands,
    plan_speech,
    turned,
)
from engine.config import EngineConfig
from engine.events import (
    AppendAudio,
    FinishUtterance,
    HypothesisUpdated,
    OpenUtterance,
    PauseUtterance,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
)
from engine.model.whisper import Whisper
from engine.runtime.caches import SlotCaches
from engine.runtime.device_assembly import assemble_device_runner
from engine.runtime.pending import Pending, StepRunner
from engine.runtime.sampling import DecodingRules
from engine.scheduling.steps import Step
from tests.support.clips import DEMO, read_clip
from tests.support.model_dims import small_dims
from tests.support.workers import EMBEDDED_CONFIG
from tests.support.wrapped_runners import FailingRunner, with_runner

CPU = torch.device("cpu")
DIMS = small_dims(
    n_mels=80, n_audio_state=64, n_audio_mlp=128, n_vocab=2200, n_text_ctx=128, n_text_state=64
)
CONFIG = forced_length_config(num_slots=8, threads=1, context="trimmed")
ID = UtteranceId(7)

seeds = st.integers(0, 2**32)


def small_engine(config: EngineConfig = CONFIG) -> Engine:
    checkpoint = random_checkpoint("small", device=CPU, dtype=torch.float32, dims=DIMS)
    return random_engine(checkpoint, config, device=CPU, dtype=torch.float32)


class SlowRunner:
    """Takes its time for every step."""

    run_ahead = 0

    def __init__(self, runner: StepRunner, step_s: float) -> None:
        self._runner = runner
        self._step_s = step_s

    def launch(self, step: Step) -> Pending:
        time.sleep(self._step_s)
        return self._runner.launch(step)


# Planning.


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

    def read(since: Samples, until: Samples) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return np.arange(since, until, dtype=np.float32)

    dues = list(plan_commands(speech, ID, OPTIONS, read))
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


# Measuring.


def test_a_virtual_clock_goes_on_with_the_real_one_and_skips() -> None:
    readings = iter((10.0, 11.0, 11.5, 12.0, 30.0, 31.0))
    clock = VirtualClock(lambda: next(readings))
    assert clock() == 10.0
    clock.skip_to(20.0)
    assert clock.skipped == 9.0
    assert clock() == 20.5
    clock.skip_to(15.0)  # is past: nothing to skip
    assert clock.skipped == 9.0
    assert clock() == 39.0


def test_a_partial_ages_until_the_next_comes_or_speech_ends() -> None:
    heard = Heard(start_s=10.0, end_s=13.0, partials=[(11.0, 10.8), (11.5, 10.6), (14.0, 13.0)])
    ages = list(heard.partial_ages())
    # Since speech began; since the first one's audio; and, as the second showed less, still.
    assert [reading for reading, _ in ages] == [11.0, 11.5, 13.0]
    assert [age for _, age in ages] == pytest.approx([1.0, 0.7, 2.2])


def test_speech_without_a_partial_is_as_old_as_it_is_long() -> None:
    assert list(Heard(start_s=1.0, end_s=4.0).partial_ages()) == [(4.0, 3.0)]


def partial_of(utterance_id: int, end: int) -> HypothesisUpdated:
    return HypothesisUpdated(
        UtteranceId(utterance_id),
        segment=0,
        start=Samples(0),
        end=Samples(end),
        text="",
        stable_text="",
        stable_end=Samples(0),
        language="en",
        interval=Samples(6400),
    )


def test_a_listener_notes_when_partials_and_finals_come() -> None:
    readings = iter((101.5, 103.0))
    listener = Listener(lambda: next(readings))
    done, lost = Heard(100.0, 102.0), Heard(100.0, 102.0)
    heard = {UtteranceId(1): done, UtteranceId(2): lost}
    listener.listen(heard, set(heard), origin_s=100.0)
    listener(partial_of(1, end=SAMPLE_RATE))
    listener(partial_of(9, end=SAMPLE_RATE))  # of another level
    assert listener.awaited == {1, 2}
    listener(UtteranceFinished(UtteranceId(1)))
    listener(UtteranceFailed(UtteranceId(2), "out of luck"))
    assert done.partials == [(101.5, 101.0)]
    assert (done.final_s, done.failed) == (103.0, False)
    assert (lost.final_s, lost.failed) == (None, True)
    assert listener.awaited == set()


def test_one_engine_serves_every_number_of_sessions_and_is_left_idle() -> None:
    engine = small_engine()
    few, more = measure(lambda: engine, (3, 12), 4.0, warm_up_s=2.0)
    assert engine.scheduler.num_utterances == 0
    assert (few["sessions"], more["sessions"]) == (3, 12)
    for row in (few, more):
        assert row["finals missing"] == row["finals failed"] == 0
        assert row["seconds"] == pytest.approx(4.0, abs=2.0)  # to whole steps
        assert row["rung"] >= 0
        assert row["peak memory GB"] > 0.0
        assert 0.0 < row["device at work"] <= row["thread at work"] <= 1.01
    assert more["sustained"] == "yes"
    assert more["finals"] > few["finals"]
    # No audio changes what a random checkpoint says, so every draft is accepted whole.
    assert more["drafts accepted"] == 1.0
    assert 0.0 < more["passes / token"] < 1.0
    assert more["rows / verify step"] >= 1.0
    latencies = [more[f"end of speech to final, {it} ms"] for it in ("p50", "p95", "p99", "max")]
    assert latencies == sorted(latencies)
    assert latencies[0] >= 500.0
    beyond = [
        more[f"the same beyond the endpoint silence, {it} ms"]
        for it in ("p50", "p95", "p99", "max")
    ]
    assert beyond == pytest.approx([it - 500.0 for it in latencies])
    assert more["age of the newest partial, p50 s"] > 0.3  # partials are 400 ms apart


def test_an_engine_that_is_measured_again_finds_its_clock_further_on() -> None:
    engine = small_engine()
    readings: list[float] = []
    next_step = engine.scheduler.next_step

    def watched(now: float) -> Step | None:
        readings.append(now)
        return next_step(now)

    engine.scheduler.next_step = watched  # type: ignore[method-assign]
    for _ in range(2):
        measure(lambda: engine, (2,), 1.0, warm_up_s=0.5, rehearse=False)
    assert readings == sorted(readings)
    assert readings[-1] - readings[0] > 30.0  # rests between levels are skipped, not waited for


def test_sessions_run_with_steps_launched_ahead_as_on_a_gpu() -> None:
    checkpoint = random_checkpoint("small", device=CPU, dtype=torch.float32, dims=DIMS)
    runner = assemble_device_runner(
        Whisper.from_checkpoint(checkpoint, dtype=torch.float32, device=CPU),
        SlotCaches.allocate(DIMS, CONFIG.num_slots, dtype=torch.float32, device=CPU),
        DecodingRules.build(checkpoint.generation, checkpoint.tokenizer, DIMS.n_vocab, CPU),
        "sdpa",
        fused=False,
        time=None,
        graphs=None,
    )
    assert runner.run_ahead == 1
    (row,) = measure(lambda: with_runner(small_engine(), runner), (4,), 3.0, warm_up_s=2.0)
    assert row["sustained"] == "yes"
    assert row["finals"] >= 1
    assert row["drafts accepted"] == 1.0


def test_a_trained_model_can_be_measured_with_real_speech() -> None:
    (row,) = measure(
        lambda: build_engine(EMBEDDED_CONFIG), (3,), 4.0, warm_up_s=1.0, audio=read_clip(DEMO)
    )
    assert row["finals missing"] == row["finals failed"] == 0
    assert row["finals"] >= 1
    assert row["tokens / s"] > 0.0


def test_an_engine_that_does_not_keep_up_is_reported_so() -> None:
    engine = small_engine()
    slow = with_runner(engine, SlowRunner(engine.runner, 0.3))
    (row,) = measure(lambda: slow, (40,), 2.0, warm_up_s=1.0, wall_cap_s=3.5)
    assert row["sustained"] == "no"
    assert row["finals missing"] >= 1
    assert engine.scheduler.num_utterances == 0


def test_a_level_that_was_given_up_at_once_has_no_figures() -> None:
    (row,) = measure(small_engine, (2,), 1.0, warm_up_s=1.0, wall_cap_s=0.0)
    assert row["sustained"] == "no"
    assert row["finals"] == 0
    assert row["end of speech to final, p95 ms"] is None
    assert row["drafts accepted"] is None
    json.dumps(row, allow_nan=False)


def test_finals_that_failed_are_not_sustained() -> None:
    engine = small_engine()
    failures = {number: RuntimeError("no luck") for number in range(1, 10**4)}
    (row,) = measure(
        lambda: with_runner(engine, FailingRunner(engine.runner, failures)),
        (6,),
        3.0,
        warm_up_s=2.0,
    )
    assert row["finals failed"] >= 1
    assert row["finals"] == 0
    assert row["sustained"] == "no"


def test_a_table_is_turned_so_that_it_fits_on_a_page() -> None:
    rows: list[dict[str, Any]] = [
        {"sessions": 2, "a": 1, "b": None},
        {"sessions": 9, "a": 3, "b": inf},
    ]
    assert turned(rows) == [
        {"sessions": "a", "2": 1, "9": 3},
        {"sessions": "b", "2": None, "9": inf},
    ]


def test_the_command_prints_a_table_and_one_line_of_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = "small --device cpu --dtype float32 --sessions 2 --seconds 1 --warm-up-s 0.5"
    sizes = {"small": replace(DIMS, n_text_layer=2)}
    main([*arguments.split(), "--decoder-layers", "1", "--set", "num_slots=4"], sizes)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["model"], found["decoder_layers"]) == ("random small", 1)
    assert {"sessions": "finals failed", "2": 0} in found["rows"]
