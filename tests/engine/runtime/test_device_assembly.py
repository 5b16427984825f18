"""How the runner of a GPU is put together, on a processor, around a model of two tiny layers."""

import logging
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from engine.audio.units import Positions
from engine.bench.direct import record_eagerly
from engine.config import Attention, EngineConfig
from engine.errors import ConfigError
from engine.model.whisper import Whisper
from engine.runtime.buckets import shapes_to_capture
from engine.runtime.caches import SlotCaches
from engine.runtime.device_assembly import (
    assemble_device_runner,
    build_device_runner,
    has_triton,
)
from engine.runtime.device_runner import DeviceRunner
from engine.runtime.graphs import GraphRunner, capture_all
from engine.runtime.sampling import DecodingRules
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import (
    DecodeStep,
    EncodeRow,
    EncodeStep,
    PrefillRow,
    PrefillStep,
    Sampling,
    TokenRow,
    TokensResult,
)
from tests.support.engines import babble
from tests.support.model_dims import small_dims

CPU = torch.device("cpu")
DIMS = small_dims(n_text_ctx=64, n_text_layer=2)
SLOTS = 2


def model() -> Whisper:
    torch.manual_seed(5)
    return Whisper(DIMS, ((1, 0), (1, 1))).eval().requires_grad_(False)


def rules() -> DecodingRules:
    nothing = torch.zeros(DIMS.n_vocab, dtype=torch.bool)
    return DecodingRules(nothing, nothing, torch.tensor([22, 23]), 20, 24, 25, 26, None)


def caches(encoder_dtype: torch.dtype | None = None) -> SlotCaches:
    return SlotCaches.allocate(
        DIMS, SLOTS, dtype=torch.float32, device=CPU, encoder_dtype=encoder_dtype
    )


def said(runner: DeviceRunner) -> list[TokenRow]:
    """A window encoded, a prefix fed, two tokens decoded."""
    slot = SlotHandle(1, 1)
    runner.launch(EncodeStep((EncodeRow(slot, babble(0.3, seed=2)),), Positions(16)))
    prefix = PrefillRow(slot, (21, 22, 3), 0, Sampling(3, timestamps=False))
    steps = (PrefillStep((prefix,)), DecodeStep((slot,)), DecodeStep((slot,)))
    rows: list[TokenRow] = []
    for step in steps:
        result = runner.launch(step).result()
        assert isinstance(result, TokensResult)
        rows += [row for row in result.rows if isinstance(row, TokenRow)]
    return rows


def assembled(
    *,
    fused: bool = False,
    attention: Attention = "sdpa",
    held: SlotCaches | None = None,
    graphs: GraphRunner | None = None,
) -> DeviceRunner:
    return assemble_device_runner(
        model(), held or caches(), rules(), attention, fused=fused, time=None, graphs=graphs
    )


def assert_same(found: Sequence[TokenRow], known: Sequence[TokenRow]) -> None:
    assert [row.tokens for row in found] == [row.tokens for row in known]
    assert [row.positions for row in found] == [row.positions for row in known]
    for one, other in zip(found, known, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "triton"])
def test_a_runner_says_the_same_whatever_it_is_made_of(attention: Attention) -> None:
    known = said(assembled())
    assert len({row.logprobs for row in known}) == 3
    assert_same(said(assembled(attention=attention, fused=True)), known)


def test_what_is_built_without_graphs_runs_with_what_this_machine_has() -> None:
    config = EngineConfig(attention="sdpa", cuda_graphs="off")
    assert_same(said(build_device_runner(model(), caches(), rules(), config)), said(assembled()))


def test_where_triton_is_missing_torch_takes_its_place_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert has_triton()
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not has_triton()
    config = EngineConfig(attention="sdpa", cuda_graphs="off")
    with caplog.at_level(logging.INFO, "engine.runtime.device_assembly"):
        runner = build_device_runner(model(), caches(), rules(), config)
    assert "Triton is not installed" in caplog.text
    assert_same(said(runner), said(assembled()))


def test_a_back_end_that_is_not_to_be_had_here_is_refused_when_it_is_built() -> None:
    config = EngineConfig(attention="flash", cuda_graphs="off")
    with pytest.raises(ConfigError, match="got 'flash'"):
        build_device_runner(model(), caches(), rules(), config)


def tensors(held: SlotCaches) -> list[Tensor]:
    """Everything that is held by slot."""
    layers = [cache for layer in held.layers for cache in (layer.self_attn, layer.cross_attn)]
    return [
        *(tensor for cache in (*layers, *held.encoder) for tensor in (cache.keys, cache.values)),
        *(held.tokens, held.lengths, held.contexts, held.begins, held.timestamps),
        *(held.temperatures, held.seeds),
    ]


def test_every_shape_can_be_captured_and_none_touches_a_slot_in_use() -> None:
    held = caches(encoder_dtype=torch.float32)
    graphs = GraphRunner(record_eagerly)
    runner = assembled(held=held, graphs=graphs)
    generator = torch.Generator().manual_seed(1)
    for tensor in tensors(held):
        if tensor.is_floating_point():
            tensor[:SLOTS] = torch.rand(tensor[:SLOTS].shape, generator=generator)
    held.lengths[:SLOTS] = 7
    before = [tensor[:SLOTS].clone() for tensor in tensors(held)]
    shapes = shapes_to_capture(2, extends=True)
    capture_all(graphs, shapes, runner.capture)
    assert len(graphs) == len(shapes)
    for tensor, was in zip(tensors(held), before, strict=True):
        assert torch.equal(tensor[:SLOTS], was)
    # The scratch row was used, and holds nothing that would spoil what comes after.
    assert held.lengths[held.scratch] <= DIMS.n_text_ctx
    assert all(bool(tensor.isfinite().all()) for tensor in tensors(held))


def test_captured_shapes_say_what_eager_ones_say() -> None:
    graphs = GraphRunner(record_eagerly)
    runner = assembled(graphs=graphs)
    capture_all(graphs, shapes_to_capture(1), runner.capture)
    assert_same(said(runner), said(assembled()))


def test_a_runner_without_graphs_captures_nothing() -> None:
    (shape, *_) = shapes_to_capture(1)
    with pytest.raises(ValueError, match="built without graphs"):
        assembled().capture(shape)


def test_windows_of_nothing_are_encoded_like_any_other() -> None:
    runner = assembled()
    slot = SlotHandle(0, 1)
    empty = EncodeRow(slot, np.zeros(0, np.float32))
    runner.launch(EncodeStep((empty,), Positions(64))).result()
    prefix = PrefillRow(slot, (21, 22), 0, Sampling(2, timestamps=False))
    result = runner.launch(PrefillStep((prefix,))).result()
    assert isinstance(result, TokensResult)
    (row,) = result.rows
    assert isinstance(row, TokenRow)
    assert np.isfinite(row.logprobs).all()
