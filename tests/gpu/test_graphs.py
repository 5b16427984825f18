"""Graphs: every captured shape does what its program does, and no step waits for the device."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.assembly import Engine
from engine.audio.units import FRAMES_PER_POSITION, SAMPLE_RATE, Positions
from engine.config import Attention, Toggle
from engine.model.encoder import HALO_FRAMES
from engine.runtime.buckets import (
    DecodeShape,
    EncodeShape,
    ExtendShape,
    FeedShape,
    Shape,
    shapes_to_capture,
)
from engine.runtime.caches import SlotCaches
from engine.runtime.device_runner import DeviceRunner
from engine.runtime.programs import Column
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import (
    DecodeStep,
    EncodeRow,
    EncodeStep,
    ExtendRow,
    ExtendStep,
    PrefillRow,
    PrefillStep,
    Sampling,
    Step,
    VerifyRow,
    VerifyStep,
)
from tests.gpu.building import (
    ON_GPU,
    TRIMMED,
    agreement,
    audios,
    checkpoint,
    engine_on,
    no_synchronisation,
    runner_of,
)
from tests.support.engines import babble, decode_together, tokens_of

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

INCREMENTAL = replace(
    ON_GPU, partial_context="incremental", num_slots=4, attention="triton", cuda_graphs="on"
)
# `sot`, English, transcribe, no timestamps, in the order of the checkpoints' own specials.
PREFIX = (401, 402, 407, 411)


def state_of(caches: SlotCaches) -> list[Tensor]:
    """Every tensor by slot, the scratch row left out: padding may write there what it likes."""
    by_slot: list[Tensor] = []
    for layer in caches.layers:
        for cache in (layer.self_attn, layer.cross_attn):
            by_slot += (cache.keys, cache.values)
    for cache in caches.encoder:
        by_slot += (cache.keys, cache.values)
    by_slot += [
        getattr(caches, field.name)
        for field in fields(caches)
        if isinstance(getattr(caches, field.name), Tensor)
    ]
    return [tensor[: caches.scratch] for tensor in by_slot]


def prepare(runner: DeviceRunner) -> None:
    """Two slots in the midst of a decode."""
    slots = [SlotHandle(0, 1), SlotHandle(1, 1)]
    encoded = tuple(EncodeRow(it, babble(1.0, seed=it.index)) for it in slots)
    runner.launch(EncodeStep(encoded, Positions(192), keep=True)).result()
    sampling = Sampling(len(PREFIX), timestamps=False)
    rows = tuple(PrefillRow(it, PREFIX, 0, sampling) for it in slots)
    runner.launch(PrefillStep(rows)).result()
    for _ in range(3):
        runner.launch(DecodeStep(tuple(slots))).result()


def inputs_of(runner: DeviceRunner, shape: Shape, device: torch.device) -> tuple[Tensor, ...]:
    """Inputs on the real slots, unlike those that the graph was captured with."""
    slots = torch.arange(shape.rows, device=device)
    generator = torch.Generator().manual_seed(shape.work)

    def features(frames: int) -> Tensor:
        mels = runner._model.dims.n_mels
        return torch.randn(shape.rows, mels, frames, generator=generator).to(device)

    match shape:
        case DecodeShape():
            return (slots,)
        case FeedShape():
            staged = torch.zeros(shape.rows, Column.TOKENS + shape.width, dtype=torch.int32)
            staged[:, Column.SLOT] = torch.arange(shape.rows)
            staged[:, Column.COUNT] = shape.width
            staged[:, Column.DRAFT] = shape.outs - 1
            staged[:, Column.BEGIN] = shape.width - shape.outs + 1
            tokens = torch.randint(400, (shape.rows, shape.width), generator=generator)
            staged[:, Column.TOKENS :] = tokens
            return (staged.to(device),)
        case EncodeShape():
            return features(FRAMES_PER_POSITION * shape.context), slots
        case ExtendShape():
            frames = HALO_FRAMES + FRAMES_PER_POSITION * shape.width
            return features(frames), slots, torch.full_like(slots, 20) + slots


@torch.inference_mode()
def outcome(
    runner: DeviceRunner,
    before: Sequence[Tensor],
    shape: Shape,
    inputs: Sequence[Tensor],
    *,
    replayed: bool,
) -> list[Tensor]:
    """Outputs and state behind one run of `shape` from the state `before`."""
    state = state_of(runner._caches)
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)
    if isinstance(shape, DecodeShape | FeedShape):
        runner._caches.contexts.clamp_(max=shape.reach)
    outputs = runner._run(shape, inputs) if replayed else runner._program(shape)(*inputs)
    return [tensor.clone() for tensor in (*outputs, *state)]


def assert_shapes_replay_what_runs_eagerly(engine: Engine, device: torch.device) -> None:
    runner = runner_of(engine)
    graphs = runner._graphs
    assert graphs is not None
    shapes = shapes_to_capture(2, extends=True)
    assert len(graphs) == len(shapes)
    prepare(runner)
    before = [tensor.clone() for tensor in state_of(runner._caches)]
    for shape in shapes:
        assert graphs.can_replay(shape)
        inputs = inputs_of(runner, shape, device)
        eager = outcome(runner, before, shape, inputs, replayed=False)
        replayed = outcome(runner, before, shape, inputs, replayed=True)
        changed = zip(state_of(runner._caches), before, strict=True)
        assert any(not torch.equal(after, value) for after, value in changed), shape
        for number, pair in enumerate(zip(replayed, eager, strict=True)):
            about = f"{shape}, tensor {number}"
            torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-4, msg=about)


@pytest.mark.parametrize("attention", ["triton", "sdpa"])
def test_every_captured_shape_does_what_its_program_does(
    device: torch.device, root: Path, attention: Attention
) -> None:
    config = replace(INCREMENTAL, attention=attention)
    assert_shapes_replay_what_runs_eagerly(
        engine_on(device, checkpoint(root, "base"), config), device
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_requests_say_with_graphs_what_they_say_without(
    device: torch.device, root: Path, dtype: torch.dtype
) -> None:
    """Six requests of two rows a step: padded, joined and left again.

    Which of them share a step depends on the time, and half precision on who shares a step.
    """
    windows = [*audios(), *(babble(1.5 + number, seed=number) for number in range(3))]
    said: list[list[list[int]]] = []
    toggles: tuple[Toggle, Toggle] = ("on", "off")
    for graphs in toggles:
        config = replace(ON_GPU, cuda_graphs=graphs, attention="triton")
        engine = engine_on(device, checkpoint(root, "base", head_dim=64), config, dtype)
        tokens: list[list[int]] = []
        for options in (TRIMMED, replace(TRIMMED, timestamps=True, context="full")):
            finals = decode_together(engine, windows, options)
            tokens += [tokens_of(final) for final in finals]
        said.append(tokens)
    if dtype == torch.float32:
        assert said[0] == said[1]
    shares = [agreement(*pair) for pair in zip(*said, strict=True)]
    print(f"{dtype}: {sum(shares) / len(shares):.1%} of the tokens")
    assert sum(shares) / len(shares) > 0.5


def every_step(generation: int) -> list[Step]:
    """Each kind of step but the aligning one, for one row and for two, in a possible order."""
    sampling = Sampling(len(PREFIX), timestamps=False)
    steps: list[Step] = []
    for first, count in ((0, 1), (1, 2)):
        slots = [SlotHandle(first + number, generation) for number in range(count)]
        windows = [babble(2.0, seed=slot.index) for slot in slots]
        pairs = list(zip(slots, windows, strict=True))
        early = tuple(EncodeRow(slot, it[:SAMPLE_RATE]) for slot, it in pairs)
        extended = tuple(ExtendRow(slot, it, Positions(60)) for slot, it in pairs)
        detected = tuple(PrefillRow(it, PREFIX[:1], 0, sampling, (402, 403)) for it in slots)
        fed = tuple(PrefillRow(it, PREFIX, 0, sampling) for it in slots)
        drafted = tuple(VerifyRow(it, 0, PREFIX, (9, 11, 17), 0, sampling) for it in slots)
        long = tuple(PrefillRow(it, PREFIX + (9,) * 70, 0, sampling) for it in slots)
        steps += [
            EncodeStep(early, Positions(192), keep=True),
            ExtendStep(extended, Positions(128)),
            EncodeStep(tuple(EncodeRow(*pair) for pair in pairs), Positions(1500)),
            PrefillStep(detected),
            PrefillStep(fed),
            DecodeStep(tuple(slots)),
            VerifyStep(drafted),
            DecodeStep(tuple(slots)),
            PrefillStep(long),
        ]
    return steps


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("attention", ["triton", "sdpa"])
@pytest.mark.parametrize("graphs", ["on", "off"])
def test_no_launch_waits_for_the_device(
    device: torch.device, root: Path, graphs: Toggle, attention: Attention
) -> None:
    """The first time apart, when kernels are compiled and tables sent."""
    config = replace(INCREMENTAL, cuda_graphs=graphs, attention=attention)
    runner = runner_of(engine_on(device, checkpoint(root, "base"), config))
    for step in every_step(generation=1):
        runner.launch(step).result()
    for step in every_step(generation=2):
        with no_synchronisation():
            pending = runner.launch(step)
        pending.result()
