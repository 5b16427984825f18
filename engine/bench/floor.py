"""Decode and encode steps beside what the device cannot go below.

A decode step reads weights, keys and values once, so its floor is their bytes at the bandwidth
of a large copy on the same device; an encode is bound by products, so its floor is its operations
at the rate of a large square product. Both rates are measured in the same run: a figure from a
data sheet would make every ratio look worse than anybody could do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

from engine.assembly import resolve_kv_dtype
from engine.audio.units import FRAMES_PER_POSITION, Positions
from engine.bench.direct import DirectModel, ModelSettings, free_memory, timer_of
from engine.bench.random_checkpoint import PUBLISHED, random_checkpoint
from engine.bench.time_box import TimeBox
from engine.model.dims import ModelDims
from engine.runtime.attention_choice import Timer
from engine.runtime.buckets import EncodeShape, decode_shape
from engine.runtime.caches import slot_bytes
from engine.runtime.features import feature_bytes

DECODE_BATCHES: Final = (1, 8, 64, 256)
ENCODE_BATCHES: Final = (1, 8, 32)
CONTEXTS: Final = (Positions(1500), Positions(448))  # 30 s; about 6 s of speech and its margin

_TOKENS: Final = 24  # of a row when its timed steps begin: a sentence so far
_CACHE_SHARE: Final = 0.8  # of the free memory; encodes and graphs take of the rest
_CPU_CACHE_BYTES: Final = 512 << 20
# Far more than any cache on the chip holds, and as large as a device's products get.
_COPY_BYTES: Final = {"cuda": 2 << 30, "cpu": 64 << 20}
_PRODUCT_ORDER: Final = {"cuda": 8192, "cpu": 512}
_KERNEL: Final = 3  # of both convolutions


def decode_bytes(
    dims: ModelDims,
    *,
    rows: int,
    tokens: float,
    positions: int,
    weight_bytes: int,
    kv_bytes: int,
) -> float:
    """What one decode step must move: each weight, and each row's keys and values, once.

    Each row has `tokens` tokens (a mean) and `positions` encoded positions; one weight takes
    `weight_bytes`, one number of keys and values `kv_bytes`. The embedding is read whole, for it
    gives the logits; activations and logits could stay on the chip and are not counted.
    """
    state, mlp = dims.n_text_state, dims.n_text_mlp
    products = 6 * state * state + 2 * state * mlp  # qkv, out; cross q, out; feed-forward
    biases = 6 * state + mlp + state
    norms = 3 * 2 * state
    weights = dims.n_text_layer * (products + biases + norms) + 2 * state + dims.n_vocab * state
    remembered = rows * dims.n_text_layer * 2 * (tokens + positions) * state
    return weights * weight_bytes + remembered * kv_bytes


def encode_operations(dims: ModelDims, *, rows: int, context: int) -> int:
    """Multiplications and additions of encoding `rows` windows of `context` positions.

    The encoder's products and the keys and values of every decoder layer; norms, activations
    and softmax are not counted.
    """
    state, mlp = dims.n_audio_state, dims.n_audio_mlp
    convolutions = _KERNEL * (2 * context * dims.n_mels + context * state) * state
    projections = 4 * context * state * state
    attention = 2 * context * context * state
    feed_forward = 2 * context * state * mlp
    cross = dims.n_text_layer * 2 * context * state * dims.n_text_state
    products = convolutions + dims.n_audio_layer * (projections + attention + feed_forward) + cross
    return 2 * rows * products


def copy_bandwidth(device: torch.device, num_bytes: int, time: Timer) -> float:
    """Bytes per second, read and written ones together, of a copy of `num_bytes`."""
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / time(lambda: target.copy_(source))


def matrix_rate(device: torch.device, dtype: torch.dtype, order: int, time: Timer) -> float:
    """Operations per second of the product of two square matrices of random numbers."""
    left, right = (torch.randn(order, order, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * order**3 / time(lambda: torch.mm(left, right, out=out))


@dataclass(frozen=True, slots=True)
class Rates:
    """What the device does at its best: bytes and operations per second."""

    copy: float
    product: float


def measure(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    decode_batches: Sequence[int] = DECODE_BATCHES,
    encode_batches: Sequence[int] = ENCODE_BATCHES,
    contexts: Sequence[Positions] = CONTEXTS,
    cache_bytes: int | None = None,
    box: TimeBox | None = None,
    sizes: Mapping[str, ModelDims] = PUBLISHED,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for each step, batch size and context, and what they must be read with.

    `name` is one in `sizes`. Steps are replays of graphs, timed on the device. Batches whose
    caches take more than `cache_bytes` (by default most of what is free) are left out.
    """
    box = box or TimeBox()
    time = timer_of(device)
    rates = Rates(
        copy_bandwidth(device, _COPY_BYTES[device.type], time),
        matrix_rate(device, dtype, _PRODUCT_ORDER[device.type], time),
    )
    free_memory(device)
    checkpoint = random_checkpoint(name, device=device, dtype=dtype, dims=sizes[name])
    one_row = slot_bytes(checkpoint.dims, resolve_kv_dtype("auto", dtype, device))
    one_row += feature_bytes(checkpoint.dims.n_mels)
    fitting = (cache_bytes or _free_bytes(device)) // one_row - 1  # a row is scratch
    num_rows = max(1, min(max(*decode_batches, *encode_batches), fitting))
    model = DirectModel(checkpoint, ModelSettings(), num_rows=num_rows, device=device, dtype=dtype)
    del checkpoint
    _fill_caches(model)
    rows: list[dict[str, Any]] = []
    steps = _Steps(model, dtype, rates, time)
    kinds: list[tuple[Literal["decode", "encode"], int]] = [
        *(("decode", batch) for batch in decode_batches),
        *(("encode", batch) for batch in encode_batches),
    ]
    for context in contexts:
        for step, batch in kinds:
            what = f"{step}, {batch} rows, {context} positions"
            if batch > num_rows:
                box.leave_out(what, f"there is memory for {num_rows} rows")
                continue
            if not box.admits(what):
                continue
            timed = steps.decode if step == "decode" else steps.encode
            try:
                figures = timed(batch, context)
            except torch.OutOfMemoryError as exc:
                box.leave_out(what, str(exc))
            else:
                rows.append({"step": step, "rows": batch, "context": context, **figures})
    facts = {
        "checkpoint": name,
        "graphs": device.type == "cuda",
        "copy_gb_per_s": rates.copy / 1e9,
        "product_tflop_per_s": rates.product / 1e12,
        "left_out": box.left_out,
    }
    return rows, facts


def _free_bytes(device: torch.device) -> int:
    """What caches may take."""
    if device.type == "cpu":
        return _CPU_CACHE_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * _CACHE_SHARE)


@torch.inference_mode()
def _fill_caches(model: DirectModel) -> None:
    """Numbers as in service: a chip that moves zeros needs less power, and so runs faster."""
    for layer in model.caches.layers:
        for kept in (layer.self_attn, layer.cross_attn):
            kept.keys.normal_()
            kept.values.normal_()


@dataclass(frozen=True, slots=True)
class _Steps:
    """Times steps of one model, and says how long each would take at the device's `rates`."""

    model: DirectModel
    dtype: torch.dtype
    rates: Rates
    time: Timer

    @torch.inference_mode()
    def decode(self, batch: int, context: Positions) -> dict[str, float | None]:
        """Each call decodes one token more, so the floor is that of the mean length."""
        model = self.model
        shape = decode_shape(batch, context)
        model.capture(shape)
        # Rows that only fill the shape up are computed for the scratch slot, as in service.
        slots = torch.full((shape.rows,), model.caches.scratch, device=model.device)
        slots[:batch] = torch.arange(batch)
        model.caches.contexts.fill_(context)
        model.caches.lengths.fill_(_TOKENS)
        seconds = self.time(lambda: model.replay(shape, (slots,)))
        tokens = (_TOKENS + float(model.caches.lengths[:batch].float().mean())) / 2
        moved = decode_bytes(
            model.dims,
            rows=batch,
            tokens=tokens,
            positions=context,
            weight_bytes=self.dtype.itemsize,
            kv_bytes=model.kv_dtype.itemsize,
        )
        return _figures(seconds, moved / self.rates.copy) | {"GB": moved / 1e9, "TFLOP": None}

    @torch.inference_mode()
    def encode(self, batch: int, context: Positions) -> dict[str, float | None]:
        """A whole encode, with the keys and values of every decoder layer."""
        model = self.model
        shape = EncodeShape(batch, context)
        model.capture(shape)
        frames = FRAMES_PER_POSITION * context
        features = torch.randn(batch, model.dims.n_mels, frames, device=model.device)
        inputs = features.to(self.dtype), torch.arange(batch, device=model.device)
        seconds = self.time(lambda: model.replay(shape, inputs))
        operations = encode_operations(model.dims, rows=batch, context=context)
        return _figures(seconds, operations / self.rates.product) | {
            "GB": None,
            "TFLOP": operations / 1e12,
        }


def _figures(seconds: float, floor: float) -> dict[str, float | None]:
    """The last one is the share of the device's rate that the step reaches."""
    return {
        "ms": 1000 * seconds,
        "floor ms": 1000 * floor,
        "x floor": seconds / floor,
        "of rate": floor / seconds,
    }
