"""Products with weights of 8 or 4 bits: x @ dequantised(weight).T + bias, for few rows.

A product of a few rows is as long as reading its weights takes, so the weights stay in their
small format until they are in registers. What is quantised how is `engine.model.quantized`'s
matter, and so is the plain twin; the formats are

    8 bits: weight int8 [out, in], scales [1, out]; one group is the whole row.
    4 bits: weight uint8 [groups, out, group / 2], scales [groups, out]. Byte j of a group holds
            feature j in its low and feature j + group / 2 in its high bits, each plus 8. What
            stands behind the last feature enters no sum.

Two halves per byte, not neighbours, because then either half is a run of features: no values
have to change places between threads. Groups come first, because then what a block of channels
needs of one group is one run of memory.

Sums are float32 whatever x is. For the rows kernels the integers are multiplied as they are, and
the scale is applied to the sum: exact in every format, and less work than scaling the weights.
No kernel uses atomics: the same input gives the same bits every time. The number of inputs is
part of a compiled kernel: a model has two of them, and loops of known length cost less.

How the kernels are cut is reckoned from the bytes that have to be on their way at once, and from
what the compiler makes of it for Hopper, Ampere and Ada; it was not measured.
"""

from dataclasses import dataclass
from typing import Final, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_ROWS: Final = 64  # one tile holds all rows, so the weights are read once
GROUPS: Final = (32, 64, 128)  # features per scale of 4 bits; half of one is the depth of a product

_DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32)

# A single row needs no product unit: a program takes four channels and up to 2048 features at
# once, so that all of a row of 1280 is on its way from memory before the first value is used.
# Four channels of 1280 outputs make 320 programs, over two for each of an H200's 132 units.
_VECTOR_CHANNELS: Final = 4
_VECTOR_FEATURES: Final = 2048

# The sum is split where there are too few channels to give every unit something to read. A split
# costs a second launch, so none is shorter than 1024 features: not worth it for 1280, but for the
# 5120 inputs of a large model's `fc2`.
_MIN_PROGRAMS: Final = 256
_MIN_SPLIT_FEATURES: Final = 1024


@dataclass(frozen=True, slots=True)
class _Tile:
    """How the rows kernels are cut: rows, channels, features of one turn of the loop."""

    rows: int
    channels: int
    features: int
    num_warps: int
    num_stages: int


def weight_only_linear(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    *,
    bits: Literal[8, 4],
    group: int,
) -> Tensor:
    """x @ dequantised(weight).T + bias for at most `MAX_ROWS` rows.

    `x` [rows, in] float16, bfloat16 or float32; `weight` and `scales` in the formats above,
    scales in any float format; `bias` [out] or None. `group` is the number of input features
    that share a scale: one of `GROUPS` for 4 bits, all of them for 8. Returns [rows, out] in
    x's dtype. Raises ValueError for shapes or formats that are not these.
    """
    num_outputs = _check(x.dtype, weight, scales, x.shape[-1], bits, group)
    if x.dim() != 2 or x.shape[0] > MAX_ROWS:
        raise ValueError(f"x: expected [at most {MAX_ROWS} rows, in], got {tuple(x.shape)}")
    if bias is not None and bias.shape != (num_outputs,):
        raise ValueError(f"bias: expected [{num_outputs}], got {tuple(bias.shape)}")
    x = x.contiguous()
    out = x.new_empty(x.shape[0], num_outputs)
    if x.shape[0] == 1:
        _vector_product(x, weight, scales, bias, out, bits, group)
    elif x.shape[0] > 1:
        _rows_product(x, weight, scales, bias, out, bits, group)
    return out


def dequantize_weight(
    weight: Tensor,
    scales: Tensor,
    *,
    num_inputs: int,
    bits: Literal[8, 4],
    group: int,
    dtype: torch.dtype,
) -> Tensor:
    """The weight as a plain matrix [out, num_inputs] of `dtype`, each value rounded once.

    For many rows: one pass over the weights, then a product of the library. The formats are
    those of `weight_only_linear`; raises ValueError for others.
    """
    num_outputs = _check(dtype, weight, scales, num_inputs, bits, group)
    out = torch.empty(num_outputs, num_inputs, dtype=dtype, device=weight.device)
    if bits == 8:
        grid = (triton.cdiv(num_inputs, 512), triton.cdiv(num_outputs, 8))
        _dequantize_int8_kernel[grid](
            weight, scales, out, num_outputs, num_inputs, BLOCK_N=8, BLOCK_K=512
        )
    else:
        grid = (scales.shape[0], triton.cdiv(num_outputs, 64))
        _dequantize_int4_kernel[grid](
            weight, scales, out, num_outputs, num_inputs, BLOCK_N=64, HALF=group // 2
        )
    return out


def _check(
    dtype: torch.dtype, weight: Tensor, scales: Tensor, num_inputs: int, bits: int, group: int
) -> int:
    """The number of outputs, where everything is in the formats of this module."""
    if dtype not in _DTYPES:
        raise ValueError(f"dtype: expected one of {_DTYPES}, got {dtype}")
    num_outputs = scales.shape[-1]
    if bits == 8:
        if group != num_inputs:
            raise ValueError(f"group: 8 bits have one of {num_inputs} features, got {group}")
        num_groups = 1
        shape: tuple[int, ...] = (num_outputs, num_inputs)
        kind = torch.int8
    elif bits == 4:
        if group not in GROUPS:
            raise ValueError(f"group: expected one of {GROUPS}, got {group}")
        num_groups = triton.cdiv(num_inputs, group)
        shape, kind = (num_groups, num_outputs, group // 2), torch.uint8
    else:
        raise ValueError(f"bits: expected 8 or 4, got {bits}")
    if scales.shape != (num_groups, num_outputs) or not scales.is_contiguous():
        raise ValueError(f"scales: expected {num_groups} rows, got {tuple(scales.shape)}")
    if weight.shape != shape or weight.dtype is not kind or not weight.is_contiguous():
        got = f"{tuple(weight.shape)} {weight.dtype}"
        raise ValueError(f"weight: expected {shape} {kind}, contiguous, got {got}")
    return num_outputs


def _vector_product(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    out: Tensor,
    bits: int,
    group: int,
) -> None:
    num_inputs, num_outputs = x.shape[1], out.shape[1]
    grid = (triton.cdiv(num_outputs, _VECTOR_CHANNELS),)
    features = min(triton.next_power_of_2(num_inputs), _VECTOR_FEATURES)
    # Where there is no bias another pointer stands for it, and is not read.
    tensors = (x, weight, scales, out if bias is None else bias, out)
    if bits == 8:
        _int8_vector_kernel[grid](
            *tensors,
            num_outputs,
            NUM_INPUTS=num_inputs,
            HAS_BIAS=bias is not None,
            BLOCK_N=_VECTOR_CHANNELS,
            BLOCK_K=features,
        )
    else:
        _int4_vector_kernel[grid](
            *tensors,
            num_outputs,
            NUM_INPUTS=num_inputs,
            NUM_GROUPS=scales.shape[0],
            HAS_BIAS=bias is not None,
            BLOCK_N=_VECTOR_CHANNELS,
            BLOCK_G=max(1, features // group),
            HALF=group // 2,
        )


def _rows_product(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    out: Tensor,
    bits: int,
    group: int,
) -> None:
    (num_rows, num_inputs), num_outputs = x.shape, out.shape[1]
    tile = _tile(num_rows, x.element_size())
    features = tile.features if bits == 8 else max(tile.features, group)
    num_blocks = triton.cdiv(num_outputs, tile.channels)
    num_steps = triton.cdiv(num_inputs, features)
    splits = min(triton.cdiv(_MIN_PROGRAMS, num_blocks), max(1, num_inputs // _MIN_SPLIT_FEATURES))
    steps_per_split = triton.cdiv(num_steps, splits)
    splits = triton.cdiv(num_steps, steps_per_split)  # so that none is empty
    target = out if splits == 1 else x.new_empty(splits, *out.shape, dtype=torch.float32)
    given = out if bias is None else bias
    tensors = (x, weight, scales, given, target)
    if bits == 8:
        _int8_rows_kernel[(num_blocks, splits)](
            *tensors,
            num_rows,
            num_outputs,
            NUM_INPUTS=num_inputs,
            STEPS_PER_SPLIT=steps_per_split,
            HAS_BIAS=bias is not None and splits == 1,
            BLOCK_M=tile.rows,
            BLOCK_N=tile.channels,
            BLOCK_K=features,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
        )
    else:
        _int4_rows_kernel[(num_blocks, splits)](
            *tensors,
            num_rows,
            num_outputs,
            NUM_INPUTS=num_inputs,
            NUM_GROUPS=scales.shape[0],
            STEPS_PER_SPLIT=steps_per_split,
            HAS_BIAS=bias is not None and splits == 1,
            BLOCK_M=tile.rows,
            BLOCK_N=tile.channels,
            HALF=group // 2,
            GROUPS_PER_STEP=features // group,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
        )
    if splits > 1:
        size = out.numel()
        _combine_kernel[(triton.cdiv(size, 256),)](
            target,
            given,
            out,
            size,
            num_outputs,
            HAS_BIAS=bias is not None,
            SPLITS=splits,
            BLOCK=256,
        )


def _tile(num_rows: int, element_bytes: int) -> _Tile:
    """Channels few, for many programs; features as many as shared memory has room for.

    With 16 bits and 16 rows a stage is 4 KiB of weights and 8 KiB of x; the compiler makes 36 KiB
    of it, so that two programs fit beside each other even into Ada's 100 KiB. Sixteen channels by
    sixteen rows are two instructions of a product unit: a third warp would do them again.
    """
    rows = max(16, triton.next_power_of_2(num_rows))
    features = 4096 // rows
    if element_bytes == 4:
        features //= 2
    return _Tile(
        rows=rows,
        channels=16 if rows == 16 else 32,
        features=features,
        num_warps=2 if rows == 16 else 4,
        num_stages=4 if rows == 16 else 3,
    )


@triton.jit
def _int8_vector_kernel(
    x,
    weight,
    scales,
    bias,
    out,
    num_outputs,
    NUM_INPUTS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_output = n < num_outputs
    k = tl.arange(0, BLOCK_K)
    sums = tl.zeros([BLOCK_N, BLOCK_K], dtype=tl.float32)
    for start in range(0, NUM_INPUTS, BLOCK_K):
        at = start + k
        is_input = at < NUM_INPUTS
        values = tl.load(
            weight + n[:, None] * NUM_INPUTS + at[None, :],
            mask=is_output[:, None] & is_input[None, :],
            other=0,
        )
        given = tl.load(x + at, mask=is_input, other=0.0).to(tl.float32)
        sums += values.to(tl.float32) * given[None, :]
    scale = tl.load(scales + n, mask=is_output, other=0.0).to(tl.float32)
    result = tl.sum(sums, axis=1) * scale
    if HAS_BIAS:
        result += tl.load(bias + n, mask=is_output, other=0.0).to(tl.float32)
    tl.store(out + n, result.to(out.dtype.element_ty), mask=is_output)


@triton.jit
def _int4_vector_kernel(
    x,
    weight,
    scales,
    bias,
    out,
    num_outputs,
    NUM_INPUTS: tl.constexpr,
    NUM_GROUPS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_G: tl.constexpr,
    HALF: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_output = n < num_outputs
    byte = tl.arange(0, HALF)[None, None, :]
    sums = tl.zeros([BLOCK_G, BLOCK_N], dtype=tl.float32)
    for start in range(0, NUM_GROUPS, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)
        is_here = (g < NUM_GROUPS)[:, None] & is_output[None, :]
        channel = g[:, None] * num_outputs + n[None, :]
        packed = tl.load(
            weight + channel[:, :, None] * HALF + byte, mask=is_here[:, :, None], other=0x88
        ).to(tl.int32)
        low_at = g[:, None, None] * (2 * HALF) + byte
        high_at = low_at + HALF
        low_x = tl.load(x + low_at, mask=low_at < NUM_INPUTS, other=0.0).to(tl.float32)
        high_x = tl.load(x + high_at, mask=high_at < NUM_INPUTS, other=0.0).to(tl.float32)
        low = ((packed & 15) - 8).to(tl.float32)
        high = ((packed >> 4) - 8).to(tl.float32)
        scale = tl.load(scales + channel, mask=is_here, other=0.0).to(tl.float32)
        sums += tl.sum(low * low_x + high * high_x, axis=2) * scale
    result = tl.sum(sums, axis=0)
    if HAS_BIAS:
        result += tl.load(bias + n, mask=is_output, other=0.0).to(tl.float32)
    tl.store(out + n, result.to(out.dtype.element_ty), mask=is_output)


# In the rows kernels the weights are the first operand and x the second: the first may come from
# registers, where the weights are after they were unpacked. `out` is the result, or a plane of
# partial sums for each split. The number of rows changes from step to step, so no kernel is
# compiled for a particular one.


@triton.jit(do_not_specialize=["num_rows"])
def _int8_rows_kernel(
    x,
    weight,
    scales,
    bias,
    out,
    num_rows,
    num_outputs,
    NUM_INPUTS: tl.constexpr,
    STEPS_PER_SPLIT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    m = tl.arange(0, BLOCK_M)
    is_output = n < num_outputs
    is_row = m < num_rows
    k = tl.arange(0, BLOCK_K)
    sums = tl.zeros([BLOCK_N, BLOCK_M], dtype=tl.float32)
    for step in range(STEPS_PER_SPLIT):
        at = (split * STEPS_PER_SPLIT + step) * BLOCK_K + k
        is_input = at < NUM_INPUTS
        values = tl.load(
            weight + n[:, None] * NUM_INPUTS + at[None, :],
            mask=is_output[:, None] & is_input[None, :],
            other=0,
        ).to(x.dtype.element_ty)
        given = tl.load(
            x + m[None, :] * NUM_INPUTS + at[:, None],
            mask=is_row[None, :] & is_input[:, None],
            other=0.0,
        )
        sums = tl.dot(values, given, sums, input_precision="ieee")
    sums *= tl.load(scales + n, mask=is_output, other=0.0).to(tl.float32)[:, None]
    if HAS_BIAS:
        sums += tl.load(bias + n, mask=is_output, other=0.0).to(tl.float32)[:, None]
    tl.store(
        out + (split * num_rows + m[None, :]) * num_outputs + n[:, None],
        sums.to(out.dtype.element_ty),
        mask=is_row[None, :] & is_output[:, None],
    )


@triton.jit(do_not_specialize=["num_rows"])
def _int4_rows_kernel(
    x,
    weight,
    scales,
    bias,
    out,
    num_rows,
    num_outputs,
    NUM_INPUTS: tl.constexpr,
    NUM_GROUPS: tl.constexpr,
    STEPS_PER_SPLIT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HALF: tl.constexpr,
    GROUPS_PER_STEP: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    m = tl.arange(0, BLOCK_M)
    is_output = n < num_outputs
    is_row = (m < num_rows)[None, :]
    byte = tl.arange(0, HALF)
    sums = tl.zeros([BLOCK_N, BLOCK_M], dtype=tl.float32)
    for step in range(STEPS_PER_SPLIT):
        # Several groups a turn: their loads are on their way together.
        for turn in tl.static_range(GROUPS_PER_STEP):
            g = (split * STEPS_PER_SPLIT + step) * GROUPS_PER_STEP + turn
            is_here = is_output & (g < NUM_GROUPS)
            packed = tl.load(
                weight + (g * num_outputs + n[:, None]) * HALF + byte[None, :],
                mask=is_here[:, None],
                other=0x88,
            ).to(tl.int32)
            low_at = (g * (2 * HALF) + byte)[:, None]
            high_at = low_at + HALF
            row = x + m[None, :] * NUM_INPUTS
            low_x = tl.load(row + low_at, mask=is_row & (low_at < NUM_INPUTS), other=0.0)
            high_x = tl.load(row + high_at, mask=is_row & (high_at < NUM_INPUTS), other=0.0)
            low = ((packed & 15) - 8).to(x.dtype.element_ty)
            high = ((packed >> 4) - 8).to(x.dtype.element_ty)
            group_sums = tl.dot(low, low_x, input_precision="ieee")
            group_sums = tl.dot(high, high_x, group_sums, input_precision="ieee")
            scale = tl.load(scales + g * num_outputs + n, mask=is_here, other=0.0)
            sums += group_sums * scale.to(tl.float32)[:, None]
    if HAS_BIAS:
        sums += tl.load(bias + n, mask=is_output, other=0.0).to(tl.float32)[:, None]
    tl.store(
        out + (split * num_rows + m[None, :]) * num_outputs + n[:, None],
        sums.to(out.dtype.element_ty),
        mask=is_row & is_output[:, None],
    )


@triton.jit(do_not_specialize=["size"])
def _combine_kernel(
    partial,
    bias,
    out,
    size,
    num_outputs,
    HAS_BIAS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_here = at < size
    sums = tl.zeros([BLOCK], dtype=tl.float32)
    for split in tl.static_range(SPLITS):
        sums += tl.load(partial + split * size + at, mask=is_here, other=0.0)
    if HAS_BIAS:
        sums += tl.load(bias + at % num_outputs, mask=is_here, other=0.0).to(tl.float32)
    tl.store(out + at, sums.to(out.dtype.element_ty), mask=is_here)


@triton.jit
def _dequantize_int8_kernel(
    weight,
    scales,
    out,
    num_outputs,
    num_inputs,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_output = n < num_outputs
    mask = is_output[:, None] & (k < num_inputs)[None, :]
    at = n[:, None] * num_inputs + k[None, :]
    scale = tl.load(scales + n, mask=is_output, other=0.0).to(tl.float32)
    values = tl.load(weight + at, mask=mask, other=0).to(tl.float32) * scale[:, None]
    tl.store(out + at, values.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _dequantize_int4_kernel(
    weight,
    scales,
    out,
    num_outputs,
    num_inputs,
    BLOCK_N: tl.constexpr,
    HALF: tl.constexpr,
):
    g = tl.program_id(0)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    byte = tl.arange(0, HALF)[None, :]
    is_output = n < num_outputs
    channel = g * num_outputs + n
    packed = tl.load(
        weight + channel[:, None] * HALF + byte, mask=is_output[:, None], other=0x88
    ).to(tl.int32)
    scale = tl.load(scales + channel, mask=is_output, other=0.0).to(tl.float32)[:, None]
    low = ((packed & 15) - 8).to(tl.float32) * scale
    high = ((packed >> 4) - 8).to(tl.float32) * scale
    low_at = g * (2 * HALF) + byte
    high_at = low_at + HALF
    row = out + n[:, None] * num_inputs
    kind = out.dtype.element_ty
    tl.store(row + low_at, low.to(kind), mask=is_output[:, None] & (low_at < num_inputs))
    tl.store(row + high_at, high.to(kind), mask=is_output[:, None] & (high_at < num_inputs))
