import json
import time
from math import inf
from typing import Any

import pytest
import torch

from engine.assembly import Engine, build_engine
from engine.bench.random_checkpoint import forced_length_config, random_checkpoint, random_engine
from engine.bench.sessions import measure, turned
from engine.config import EngineConfig
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


def test_one_engine_serves_every_number_of_sessions_and_is_left_idle() -> None:
    engine = small_engine()
    few, more = measure(engine, (3, 12), 4.0, warm_up_s=2.0)
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
        measure(engine, (2,), 1.0, warm_up_s=0.5, rehearse=False)
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
    (row,) = measure(with_runner(small_engine(), runner), (4,), 3.0, warm_up_s=2.0)
    assert row["sustained"] == "yes"
    assert row["finals"] >= 1
    assert row["drafts accepted"] == 1.0


def test_a_trained_model_can_be_measured_with_real_speech() -> None:
    (row,) = measure(build_engine(EMBEDDED_CONFIG), (3,), 4.0, warm_up_s=1.0, audio=read_clip(DEMO))
    assert row["finals missing"] == row["finals failed"] == 0
    assert row["finals"] >= 1
    assert row["tokens / s"] > 0.0


def test_an_engine_that_does_not_keep_up_is_reported_so() -> None:
    engine = small_engine()
    slow = with_runner(engine, SlowRunner(engine.runner, 0.3))
    (row,) = measure(slow, (40,), 2.0, warm_up_s=1.0, wall_cap_s=3.5)
    assert row["sustained"] == "no"
    assert row["finals missing"] >= 1
    assert engine.scheduler.num_utterances == 0


def test_a_level_that_was_given_up_at_once_has_no_figures() -> None:
    (row,) = measure(small_engine(), (2,), 1.0, warm_up_s=1.0, wall_cap_s=0.0)
    assert row["sustained"] == "no"
    assert row["finals"] == 0
    assert row["end of speech to final, p95 ms"] is None
    assert row["drafts accepted"] is None
    json.dumps(row, allow_nan=False)


def test_finals_that_failed_are_not_sustained() -> None:
    engine = small_engine()
    failures = {number: RuntimeError("no luck") for number in range(1, 10**4)}
    (row,) = measure(
        with_runner(engine, FailingRunner(engine.runner, failures)),
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


def test_columns_of_several_models_say_which_they_are_of() -> None:
    rows = [{"model": model, "sessions": 2, "a": number} for number, model in enumerate("xy")]
    assert turned(rows) == [{"model sessions": "a", "x 2": 0, "y 2": 1}]
