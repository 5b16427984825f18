from collections.abc import Callable

import pytest
import torch

from engine.audio.units import Positions
from engine.bench.floor import (
    copy_bandwidth,
    decode_bytes,
    encode_operations,
    matrix_rate,
    measure,
)
from engine.bench.random_checkpoint import random_checkpoint
from engine.bench.time_box import TimeBox
from engine.model.whisper import Whisper
from engine.runtime.caches import slot_bytes
from engine.runtime.features import feature_bytes
from tests.support.model_dims import small_dims

CPU = torch.device("cpu")
DIMS = small_dims(
    n_mels=80, n_audio_state=64, n_text_state=64, n_vocab=2200, n_text_ctx=64, n_text_layer=2
)


def two_seconds(call: Callable[[], object]) -> float:
    call()
    return 2.0


def test_a_decode_step_moves_weights_once_and_what_each_row_remembers() -> None:
    dims = small_dims(n_vocab=30, n_text_ctx=16)  # state 8, feed-forward 16, one layer
    # 8 x 24 and 8 x 8 of self-attention, 8 x 8 twice of cross-attention, 8 x 16 twice.
    products = 192 + 64 + 64 + 64 + 128 + 128
    biases = 24 + 8 + 8 + 8 + 16 + 8
    norms = 3 * 16 + 16
    embedding = 30 * 8
    remembered = 5 * 2 * (7 + 11) * 8  # of five rows keys and values of 7 tokens, 11 positions
    moved = decode_bytes(dims, rows=5, tokens=7, positions=11, weight_bytes=2, kv_bytes=1)
    assert moved == 2 * (products + biases + norms + embedding) + remembered


def test_the_weights_of_a_decode_step_are_those_that_a_model_has_for_it() -> None:
    checkpoint = random_checkpoint("base", device=CPU, dtype=torch.float32, dims=DIMS)
    decoder = Whisper.from_checkpoint(checkpoint, dtype=torch.float32, device=CPU).decoder
    read = {
        name: parameter.numel()
        for name, parameter in decoder.named_parameters()
        # Computed with when a window is encoded; one line of it for each row.
        if "cross_kv_proj" not in name and name != "embed_positions.weight"
    }
    nothing = decode_bytes(DIMS, rows=0, tokens=0, positions=0, weight_bytes=1, kv_bytes=1)
    assert nothing == sum(read.values())


def test_operations_of_an_encode_are_counted_by_hand_for_a_small_one() -> None:
    dims = small_dims()  # 8 bins, state 8, feed-forward 16, one layer on either side
    convolutions = 2 * (4 * 8 * 24) + 2 * (2 * 8 * 24)  # four frames, then two positions
    projections = 2 * (2 * 8 * 24) + 2 * (2 * 8 * 8)
    attention = 2 * (2 * 2 * 8) + 2 * (2 * 2 * 8)
    feed_forward = 2 * (2 * 8 * 16) + 2 * (2 * 16 * 8)
    cross = 2 * (2 * 8 * 16)
    one = convolutions + projections + attention + feed_forward + cross
    assert encode_operations(dims, rows=1, context=2) == one
    assert encode_operations(dims, rows=3, context=2) == 3 * one


def test_rates_are_what_was_done_by_the_time_it_took() -> None:
    assert copy_bandwidth(CPU, 1000, two_seconds) == 1000.0  # as many read as written
    assert matrix_rate(CPU, torch.float32, 10, two_seconds) == 1000.0


def test_every_step_stands_beside_its_floor() -> None:
    rows, facts = measure(
        "base",
        device=CPU,
        dtype=torch.float32,
        decode_batches=(1, 3),
        encode_batches=(2,),
        contexts=(Positions(448), Positions(64)),
        sizes={"base": DIMS},
    )
    assert [(row["step"], row["rows"], row["context"]) for row in rows] == [
        (step, batch, context)
        for context in (448, 64)
        for step, batch in (("decode", 1), ("decode", 3), ("encode", 2))
    ]
    for row in rows:
        assert row["x floor"] == pytest.approx(row["ms"] / row["floor ms"])
        assert row["of rate"] == pytest.approx(row["floor ms"] / row["ms"])
        if row["step"] == "encode":
            done, rate = row["TFLOP"], facts["product_tflop_per_s"]
        else:
            done, rate = row["GB"], facts["copy_gb_per_s"]
        assert row["floor ms"] == pytest.approx(1000 * done / rate)
    one, three = (row["GB"] for row in rows[:2])
    assert one < three < 3 * one  # weights are read once for all rows
    assert facts["left_out"] == []


def test_batches_that_there_is_no_memory_or_time_for_are_named() -> None:
    one_row = slot_bytes(DIMS, torch.float32) + feature_bytes(DIMS.n_mels)
    rows, facts = measure(
        "base",
        device=CPU,
        dtype=torch.float32,
        decode_batches=(1, 8),
        encode_batches=(1,),
        contexts=(Positions(64),),
        cache_bytes=4 * one_row,
        box=TimeBox(0.0),
        sizes={"base": DIMS},
    )
    assert [(row["step"], row["rows"]) for row in rows] == [("decode", 1)]
    assert facts["left_out"] == [
        "decode, 8 rows, 64 positions: there is memory for 3 rows",
        "encode, 1 rows, 64 positions",
    ]
