from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.assembly import build_engine
from engine.audio.units import SAMPLE_RATE
from engine.bench.partials import growth, measure
from engine.bench.random_checkpoint import (
    forced_length_config,
    random_audio,
    random_checkpoint,
    random_engine,
)
from engine.bench.time_box import TimeBox
from tests.support.clips import TWO_SENTENCES, read_clip
from tests.support.model_dims import small_dims
from tests.support.workers import EMBEDDED_CONFIG

CPU = torch.device("cpu")
DIMS = small_dims(n_mels=80, n_audio_state=64, n_text_state=64, n_vocab=2200, n_text_ctx=128)


def random_rows(box: TimeBox | None = None) -> list[dict[str, Any]]:
    """Of 3 s of noise."""
    checkpoint = random_checkpoint("small", device=CPU, dtype=torch.float32, dims=DIMS)
    return measure(
        lambda config: random_engine(checkpoint, config, device=CPU, dtype=torch.float32),
        forced_length_config(num_slots=1, threads=1),
        [random_audio(3 * SAMPLE_RATE)],
        400,
        language="en",
        compare=False,
        box=box,
    )


def test_both_ways_of_encoding_are_measured_by_the_length_of_windows() -> None:
    """Exact is exact even where the service is to be set otherwise."""
    clip = read_clip(TWO_SENTENCES)[: 4 * SAMPLE_RATE]
    config = replace(EMBEDDED_CONFIG, partial_context="incremental")
    rows = measure(build_engine, config, [clip], 400)
    assert {row["partials"] for row in rows} == {"trimmed", "incremental"}
    assert {row["windows up to, s"] for row in rows} == {2.5, 5.0}
    by_context = {
        context: sum(row["number"] for row in rows if row["partials"] == context)
        for context in ("trimmed", "incremental")
    }
    assert by_context["trimmed"] == by_context["incremental"] == 9
    for row in rows:
        assert 0 < row["encode ms"] < row["all ms"]
        assert 0 < row["decode ms"] < row["all ms"]
        assert 0 <= row["words unlike exact, %"] < 50


def test_random_weights_are_timed_alone() -> None:
    rows = random_rows()
    assert [(row["partials"], row["number"]) for row in rows] == [
        (context, number) for context in ("trimmed", "incremental") for number in (5, 1)
    ]
    assert not any("words unlike exact, %" in row for row in rows)


def test_a_way_that_there_is_no_time_for_is_named() -> None:
    box = TimeBox(0.0)
    assert {row["partials"] for row in random_rows(box)} == {"trimmed"}
    assert box.left_out == ["incremental partials"]


def test_growth_is_what_long_windows_cost_over_short_ones() -> None:
    rows = [
        {"partials": context, "windows up to, s": bound, "all ms": ms}
        for context, bound, ms in (
            ("trimmed", 2.5, 1.0),
            ("trimmed", 5.0, 2.0),
            ("trimmed", 25.0, 7.0),
            ("trimmed", 30.0, 9.0),
            ("incremental", 5.0, 3.0),
        )
    ]
    assert growth(rows) == pytest.approx({"trimmed": 3.5})
    assert growth([*rows, {**rows[-1], "windows up to, s": 25.0}]) == pytest.approx(
        {"trimmed": 3.5, "incremental": 1.0}
    )
