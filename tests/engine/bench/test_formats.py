import numpy as np
import torch

from engine.audio.units import SAMPLE_RATE
from engine.bench.formats import (
    FORMATS,
    Agreement,
    Format,
    agreements,
    agreements_on_speech,
    cut_overlapping,
    measure,
)
from engine.bench.throughput import REQUEST_SECONDS
from engine.bench.time_box import TimeBox
from engine.model.checkpoint import load_checkpoint
from tests.support.clips import REPOSITORY, TWO_SENTENCES, read_clip
from tests.support.model_dims import small_dims

CPU = torch.device("cpu")
LENGTH = REQUEST_SECONDS * SAMPLE_RATE
# A head as wide as Whisper's, so that a scale for each is as small beside it.
DIMS = small_dims(
    n_mels=80,
    n_audio_state=128,
    n_audio_mlp=256,
    n_text_state=128,
    n_text_mlp=256,
    n_vocab=2200,
    n_text_ctx=64,
)


def test_requests_begin_evenly_spread_over_what_was_said() -> None:
    recording = np.arange(LENGTH + 90, dtype=np.float32)
    cut = cut_overlapping([recording[:50], recording[50:]], 4)
    assert [int(it[0]) for it in cut] == [0, 30, 60, 90]
    assert {len(it) for it in cut} == {LENGTH}


def test_a_recording_that_is_too_short_ends_in_silence() -> None:
    (cut,) = cut_overlapping([np.ones(100, dtype=np.float32)], 1)
    assert (len(cut), float(cut.sum())) == (LENGTH, 100.0)


def test_agreement_counts_choices_and_requests_that_are_equal() -> None:
    said = [(1, 2, 3), (4, 5), (6, 7, 8)]
    assert Agreement.of(said, said) == Agreement(1.0, 1.0, 8)
    # A difference costs itself alone, what was chosen behind it counts again.
    assert Agreement.of(said, [(1, 9, 3), (4, 5), (9, 9, 8)]) == Agreement(5 / 8, 1 / 3, 8)


def test_the_plain_format_agrees_with_itself_and_eight_bits_nearly() -> None:
    checkpoint = load_checkpoint(REPOSITORY / "engine" / "embedded")
    requests = [read_clip(TWO_SENTENCES)[: 3 * SAMPLE_RATE]]
    kinds = (Format(weights="int8"), Format())
    found = agreements(checkpoint, requests, device=CPU, dtype=torch.float32, formats=kinds)
    assert tuple(found) == kinds
    assert found[Format()].choices == found[Format()].requests == 1.0
    assert found[Format()].num_choices > 5
    assert found[Format(weights="int8")].choices > 0.8


def test_speech_is_compared_on_the_embedded_model() -> None:
    clip = read_clip(TWO_SENTENCES)
    found = agreements_on_speech([clip], device=CPU, dtype=torch.float32, num_requests=1)
    assert tuple(found) == FORMATS
    assert all(it.choices > 0.8 for it in found.values())
    assert {it.num_choices for it in found.values()} == {found[Format()].num_choices}


def test_every_format_has_its_time_its_memory_and_what_it_changes() -> None:
    agreed = {
        Format(): Agreement(1.0, 1.0, 40),
        Format(weights="int8"): Agreement(0.9, 0.5, 40),
        Format(kv_dtype="fp8"): Agreement(0.8, 0.25, 40),
    }
    rows, facts = measure(
        "base",
        agreed,
        device=CPU,
        dtype=torch.float32,
        num_requests=2,
        num_tokens=4,
        sizes={"base": DIMS},
    )
    assert [(row["weights"], row["caches"]) for row in rows] == [
        ("float32", "float32"),
        ("int8", "float32"),
        ("float32", "fp8"),
    ]
    assert [(row["agree"], row["equal"]) for row in rows] == [(1.0, 1.0), (0.9, 0.5), (0.8, 0.25)]
    plain, int8, fp8 = rows
    assert int8["weights MiB"] < plain["weights MiB"] == fp8["weights MiB"]
    assert fp8["slot MiB"] < 0.3 * plain["slot MiB"] == 0.3 * int8["slot MiB"]
    assert all(row["s, trimmed"] > 0.0 < row["s, full"] for row in rows)
    assert (facts["choices_compared"], facts["requests"], facts["left_out"]) == (40, 2, [])


def test_formats_that_there_is_no_time_for_are_named() -> None:
    agreed = {kind: Agreement(1.0, 1.0, 1) for kind in (Format(), Format("int4", "fp8"))}
    rows, facts = measure(
        "base",
        agreed,
        device=CPU,
        dtype=torch.float32,
        num_requests=1,
        num_tokens=2,
        box=TimeBox(0.0),
        sizes={"base": DIMS},
    )
    assert len(rows) == 1
    assert facts["left_out"] == ["int4 weights, fp8 caches"]
