import pytest
import torch

from engine.bench.attention import available, measure
from engine.bench.time_box import TimeBox
from tests.support.model_dims import small_dims

CPU = torch.device("cpu")
SIZES = {
    "tiny": small_dims(
        n_mels=80,
        n_audio_state=64,
        n_text_state=64,
        n_vocab=2200,
        n_text_ctx=64,
        n_text_layer=3,
    )
}


def test_every_model_back_end_and_case_has_a_row() -> None:
    rows, facts = measure(
        ("tiny",), device=CPU, dtype=torch.float32, cases=((1, 4), (2, 3)), sizes=SIZES
    )
    assert [(row["layers"], row["back end"], row["windows"], row["tokens"]) for row in rows] == [
        (layers, back_end, windows, tokens)
        for layers in (3, 2)  # all of them, then the one of 6, 4 and 2 that is fewer
        for back_end in ("sdpa", "eager")
        for windows, tokens in ((1, 4), (2, 3))
    ]
    for row in rows:
        assert row["x real time"] == pytest.approx(30 * row["windows"] / row["s"])
        assert row["MiB"] is None  # nobody counts a processor's
    assert facts["left_out"] == []
    assert not facts["graphs"]


def test_back_ends_of_a_gpu_are_named_as_missing_without_one() -> None:
    names, missing = available(CPU, torch.float32)
    assert names == ("sdpa", "eager")
    assert missing == {"flash": "needs a CUDA device", "triton": "needs a CUDA device"}


def test_what_there_is_no_time_for_is_named() -> None:
    rows, facts = measure(
        ("tiny",),
        device=CPU,
        dtype=torch.float32,
        cases=((1, 3),),
        box=TimeBox(0.0),
        sizes=SIZES,
    )
    assert [(row["layers"], row["back end"]) for row in rows] == [(3, "sdpa")]
    assert facts["left_out"] == [
        "tiny, 3 layers, eager, 1 x 3 tokens",
        "tiny, 2 layers, sdpa, 1 x 3 tokens",
        "tiny, 2 layers, eager, 1 x 3 tokens",
    ]


def test_a_row_that_fails_costs_itself_alone() -> None:
    """No device encodes a batch without windows."""
    rows, facts = measure(
        ("tiny",), device=CPU, dtype=torch.float32, cases=((0, 3), (1, 3)), sizes=SIZES
    )
    assert {row["windows"] for row in rows} == {1}
    assert len(rows) == len(facts["left_out"]) == 4
    assert facts["left_out"][0].startswith("tiny, 3 layers, sdpa, 0 x 3 tokens: ValueError: ")
