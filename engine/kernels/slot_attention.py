"""Attention over slot-indexed caches, in place: each row reads the keys of its own slot.

One query per row is bound by memory and goes through plain vector arithmetic; several go
through `tl.dot` in blocks. Where there are too few rows and heads to fill the device, the keys
are split among programs and the parts are put together by a second kernel ("flash-decoding",
https://pytorch.org/blog/flash-decoding). New keys and values are stored by the launch that
attends to them.

Launch grids depend on shapes and host integers alone, so everything can be captured in a CUDA
graph. `engine.kernels.plain_attention` holds the same in plain torch.

Softmax is computed in powers of two: the scores are scaled by log2(e) as well.
"""

import math
from functools import cache
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.checks import check_contiguous
from engine.kernels.plain_attention import FLOAT8, check_caches, check_new

# Keys of one pass of a program; splits begin at multiples of it.
KEYS_PER_BLOCK: Final = 64
# Fewer keys are read whole: putting parts together takes a launch, and that takes longer.
MIN_KEYS_TO_SPLIT: Final = 513
# Where the device fills two programs per multiprocessor anyway the keys stay whole; else they
# are split until there are about four.
ENOUGH_PROGRAMS_PER_MULTIPROCESSOR: Final = 2
WANTED_PROGRAMS_PER_MULTIPROCESSOR: Final = 4
# Of no importance but to the interpreter, in which kernels are tested.
CPU_MULTIPROCESSORS: Final = 8

_DOT_TYPES: Final = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
}


def num_splits(programs: int, most: int, multiprocessors: int) -> int:
    """Into how many parts `most` keys are split for a device of so many multiprocessors.

    `programs` are those that there are without splitting: rows × heads × blocks of queries.
    Every part but the last has the same whole number of blocks of keys, and none is empty.
    """
    is_full = programs >= ENOUGH_PROGRAMS_PER_MULTIPROCESSOR * multiprocessors
    if is_full or most < MIN_KEYS_TO_SPLIT:
        return 1
    wanted = WANTED_PROGRAMS_PER_MULTIPROCESSOR * multiprocessors // max(programs, 1)
    return -(-most // _keys_per_split(most, wanted))


def slot_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    seen: Tensor,
    *,
    causal: bool,
    most: int,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    new_keys: Tensor | None = None,
    new_values: Tensor | None = None,
) -> Tensor:
    """Attention of a few queries per row to the keys of the row's slot.

    `query` [rows, width, heads, head_dim], float32, float16 or bfloat16; `keys`, `values`
    [slots, positions, heads, head_dim], float8 with `key_scales`, `value_scales`
    [slots, positions, heads] float32, else any of the query's types; `slots`, `seen` [rows]
    int32 or int64. Any strides, but the last dimension of everything is contiguous. Query i of
    a row sees the first `seen` + i keys where `causal`, else the first `seen`, and none from
    `most` on. A query that sees nothing gets zeros.

    `new_keys`, `new_values` [rows, width, heads, head_dim] are those of the queries' own tokens,
    of which query i's stands at position `seen` - 1 + i. They are written to the cache, and
    attended to as the cache would give them back; what would lie outside the cache is dropped.
    Only where `causal`. Rows that share a slot, as padding does, leave any of their vectors
    in it.

    Scores, softmax and sums are float32; float32 products are exact, the others run on the
    query's type where the cache has it too or is float8, else on float32. Returns
    [rows, width, heads, head_dim], contiguous, in the query's type. Raises ValueError where the
    arguments contradict each other.
    """
    check_caches(keys, values, key_scales, value_scales)
    check_new(new_keys, new_values, causal=causal)
    check_contiguous(query, keys, values, slots, seen, new_keys, new_values)
    rows, width, heads, head_dim = query.shape
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    if not out.numel():
        return out
    dot_type, exact = _dot_type(query, keys)
    block_queries = _block_queries(width, exact=exact)
    query_blocks = triton.cdiv(width, block_queries)
    programs = rows * heads * query_blocks
    limit = min(most, keys.shape[1])
    splits = num_splits(programs, limit, _multiprocessors(query.device))
    part, weight = out, out  # the second is not touched where the keys are whole
    if splits > 1:
        part = out.new_empty((rows, heads, splits, width, head_dim), dtype=torch.float32)
        weight = part.new_empty(part.shape[:-1])

    tensors = (
        query,
        _stored(keys),
        _stored(values),
        key_scales,
        value_scales,
        new_keys,
        new_values,
        slots,
        seen,
        part,
        weight,
    )
    strides = (
        *query.stride()[:3],
        *keys.stride()[:3],
        *values.stride()[:3],
        *_strides(key_scales),
        *_strides(value_scales),
        *_strides(new_keys),
        *_strides(new_values),
    )
    numbers = (
        heads,
        keys.shape[1],
        limit,
        _keys_per_split(limit, splits),
        head_dim**-0.5 * math.log2(math.e),
    )
    options: dict[str, Any] = {
        "HEAD_DIM": head_dim,
        "BLOCK_DIM": max(16, triton.next_power_of_2(head_dim)),
        "HAS_NEW": new_keys is not None,
        "QUANTISED": key_scales is not None,
        "NATIVE_FLOAT8": _has_native_float8(query.device),
        "IS_SPLIT": splits > 1,
        "num_warps": 4,
    }
    if width == 1:
        _attend_one[(rows * heads, splits)](
            *tensors, *strides, *numbers, BLOCK_KEYS=_block_keys(keys), **options
        )
    else:
        _attend_many[(programs, splits)](
            *tensors,
            *strides,
            *numbers,
            width,
            CAUSAL=causal,
            DOT=dot_type,
            BLOCK_QUERIES=block_queries,
            BLOCK_KEYS=KEYS_PER_BLOCK // 2 if exact else _block_keys(keys),
            num_stages=2,
            **options,
        )
    if splits > 1:
        _combine[(rows * width, heads)](
            part,
            weight,
            out,
            heads,
            width,
            splits,
            BLOCK_SPLITS=triton.next_power_of_2(splits),
            HEAD_DIM=head_dim,
            BLOCK_DIM=triton.next_power_of_2(head_dim),
            num_warps=1,
        )
    return out


def store_keys_values(
    new_keys: Tensor,
    new_values: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    *,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    starts: Tensor | None = None,
) -> None:
    """Write consecutive keys and values of each row into its slot, in one launch.

    `new_keys`, `new_values` [rows, count, heads, head_dim]; `keys`, `values`
    [slots, positions, heads, head_dim]; scales [slots, positions, heads] float32, with which
    the caches are float8; `slots`, `starts` [rows] int32 or int64. Any strides, but the last
    dimension of vectors is contiguous. The first is written at position `starts` of the row, or
    0; what would lie outside the cache is dropped. Raises ValueError where the arguments
    contradict each other.
    """
    check_caches(keys, values, key_scales, value_scales)
    check_contiguous(new_keys, new_values, keys, values, slots, starts)
    rows, count, heads, head_dim = new_keys.shape
    if not new_keys.numel():
        return
    blocks = triton.cdiv(count, KEYS_PER_BLOCK)
    _store[(rows * blocks * heads,)](
        new_keys,
        new_values,
        _stored(keys),
        _stored(values),
        key_scales,
        value_scales,
        slots,
        starts,
        *new_keys.stride()[:3],
        *new_values.stride()[:3],
        *keys.stride()[:3],
        *values.stride()[:3],
        *_strides(key_scales),
        *_strides(value_scales),
        heads,
        count,
        keys.shape[1],
        HEAD_DIM=head_dim,
        BLOCK_DIM=triton.next_power_of_2(head_dim),
        BLOCK_KEYS=KEYS_PER_BLOCK,
        QUANTISED=key_scales is not None,
        HAS_STARTS=starts is not None,
        num_warps=4,
    )


def alignment_weights(
    query: Tensor,
    keys: Tensor,
    slots: Tensor,
    seen: Tensor,
    heads: Tensor,
    total: Tensor,
    *,
    key_scales: Tensor | None = None,
) -> None:
    """Add to `total` where some heads look, summed over the heads.

    `query` [rows, width, all heads, head_dim]; `keys` [slots, positions, all heads, head_dim],
    float8 with `key_scales` [slots, positions, all heads]; `slots`, `seen` [rows] and `heads`
    int32 or int64; `total` [rows, width, most] float32. Any strides, but the last dimension of
    query, keys and total is contiguous. Each of `heads` adds its probabilities over the first
    `seen` keys; what lies behind stays as it is. The alignment heads tell where in the audio a
    token is spoken (openai/whisper `timing.py`). Raises ValueError where the arguments
    contradict each other.

    One launch sums the exponentials of each head, a second adds the heads up per block of keys,
    always in the same order.
    """
    check_caches(keys, keys, key_scales, key_scales)
    check_contiguous(query, keys, slots, seen, heads, total)
    rows, width, _, head_dim = query.shape
    (num_heads,) = heads.shape
    limit = min(total.shape[2], keys.shape[1])
    if not (rows and width and num_heads and limit):
        return
    dot_type, exact = _dot_type(query, keys)
    block_queries = _block_queries(width, exact=exact)
    query_blocks = triton.cdiv(width, block_queries)
    block_keys = KEYS_PER_BLOCK // 2 if exact else _block_keys(keys)
    masses = query.new_empty((rows, num_heads, width), dtype=torch.float32)
    tensors = (query, _stored(keys), key_scales, slots, seen, heads, masses)
    strides = (*query.stride()[:3], *keys.stride()[:3], *_strides(key_scales))
    numbers = (num_heads, width, limit, head_dim**-0.5 * math.log2(math.e))
    options: dict[str, Any] = {
        "DOT": dot_type,
        "HEAD_DIM": head_dim,
        "BLOCK_DIM": max(16, triton.next_power_of_2(head_dim)),
        "BLOCK_QUERIES": block_queries,
        "BLOCK_KEYS": block_keys,
        "QUANTISED": key_scales is not None,
        "NATIVE_FLOAT8": _has_native_float8(query.device),
        "num_warps": 4,
        "num_stages": 2,
    }
    _alignment_masses[(rows * query_blocks, num_heads)](*tensors, *strides, *numbers, **options)
    _alignment_sums[(rows * query_blocks, triton.cdiv(limit, block_keys))](
        *tensors, total, *strides, *total.stride()[:2], *numbers, **options
    )


def _keys_per_split(most: int, splits: int) -> int:
    """A whole number of blocks, such that `splits` of them hold `most` keys."""
    return max(1, -(-most // (KEYS_PER_BLOCK * splits))) * KEYS_PER_BLOCK


def _block_queries(width: int, *, exact: bool) -> int:
    """Queries of one program; float32 products are made in registers, of which there are few."""
    return 16 if width <= 16 or exact else 32 if width <= 32 else 64


def _block_keys(keys: Tensor) -> int:
    """Keys of one pass: of large vectors fewer, as shared memory holds two passes."""
    return KEYS_PER_BLOCK if keys.shape[-1] * keys.element_size() <= 256 else KEYS_PER_BLOCK // 2


def _dot_type(query: Tensor, keys: Tensor) -> tuple[Any, bool]:
    """The type that `tl.dot` multiplies, and whether it is float32."""
    kind = query.dtype if keys.dtype in (query.dtype, FLOAT8) else torch.float32
    return _DOT_TYPES[kind], kind == torch.float32


def _stored(cache: Tensor) -> Tensor:
    """What the kernels read and write: float8 as bytes, so that any GPU can hold it."""
    return cache.view(torch.uint8) if cache.dtype == FLOAT8 else cache


def _strides(tensor: Tensor | None) -> tuple[int, ...]:
    """The first three strides, of which an absent tensor has none that matter."""
    return (0, 0, 0) if tensor is None else tensor.stride()[:3]


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return CPU_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


@cache
def _has_native_float8(device: torch.device) -> bool:
    """Whether the device converts float8 by itself: Ada and Hopper do, Ampere does not."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


@triton.jit
def float8_to_float32(stored, NATIVE: tl.constexpr):
    """The float32 that bytes of float8_e4m3fn stand for.

    Without native conversion the bits are those of a float16 whose exponent is off by eight.
    Its two NaN bytes, which quantising never writes, then read as 480.
    """
    if NATIVE:
        return stored.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    # Sign extension puts the sign into bits 15 and 14 of the shifted word; 14 is cleared.
    wide = (stored.to(tl.int8, bitcast=True).to(tl.int16) << 7) & -16385
    return wide.to(tl.float16, bitcast=True).to(tl.float32) * 256.0


@triton.jit
def float32_to_float8(numbers):
    """Bytes of float8_e4m3fn nearest to float32 `numbers`, ties to even, at most 448."""
    size = tl.minimum(tl.abs(numbers), 448.0)
    bits = size.to(tl.int32, bitcast=True)
    # Twenty bits of mantissa are rounded away; the exponents' biases are 127 and 7.
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - ((127 - 7) << 3)
    # Below 2**-6 all steps are 2**-9, which are those of a float32 at 2**14.
    subnormal = (size + 16384.0).to(tl.int32, bitcast=True) - 0x46800000
    code = tl.where(size < 0.015625, subnormal, normal)
    sign = (numbers.to(tl.int32, bitcast=True) >> 24) & 0x80
    return (code | sign).to(tl.uint8)


@triton.jit
def _scales_of(vectors, AXIS: tl.constexpr):
    # Division rounded as IEEE has it, here and below, gives the same bytes as the plain twin.
    return tl.div_rn(tl.max(tl.abs(vectors), axis=AXIS), 448.0)


@triton.jit
def _quantised(vectors, scales):
    return float32_to_float8(tl.div_rn(vectors, tl.where(scales > 0, scales, 1.0)))


@triton.jit
def _wide(stored, QUANTISED: tl.constexpr, NATIVE: tl.constexpr):
    # What a cache holds as float32, without its scale.
    if QUANTISED:
        return float8_to_float32(stored, NATIVE)
    return stored.to(tl.float32)


@triton.jit(do_not_specialize=["positions", "limit", "keys_per_split"])
def _attend_one(
    query,
    keys,
    values,
    key_scales,
    value_scales,
    new_keys,
    new_values,
    slots,
    seen,
    out,
    out_weight,
    query_row,
    query_token,
    query_head,
    keys_slot,
    keys_position,
    keys_head,
    values_slot,
    values_position,
    values_head,
    key_scales_slot,
    key_scales_position,
    key_scales_head,
    value_scales_slot,
    value_scales_position,
    value_scales_head,
    new_keys_row,
    new_keys_token,
    new_keys_head,
    new_values_row,
    new_values_token,
    new_values_head,
    heads,
    positions,
    limit,
    keys_per_split,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    HAS_NEW: tl.constexpr,
    QUANTISED: tl.constexpr,
    NATIVE_FLOAT8: tl.constexpr,
    IS_SPLIT: tl.constexpr,
):
    # One query of one row and head over one split. Each lane of a block of keys keeps a softmax
    # of its own, so that nothing is exchanged between warps before the end.
    row = (tl.program_id(0) // heads).to(tl.int64)
    head = tl.program_id(0) % heads
    split = tl.program_id(1)
    slot = tl.load(slots + row).to(tl.int64)
    length = tl.load(seen + row).to(tl.int32)
    cached = tl.minimum(length - 1 if HAS_NEW else length, limit)
    begin = split * keys_per_split
    end = tl.minimum(begin + keys_per_split, cached)

    dims = tl.arange(0, BLOCK_DIM)
    in_head = dims < HEAD_DIM
    lanes = tl.arange(0, BLOCK_KEYS)
    asked = tl.load(query + row * query_row + head * query_head + dims, mask=in_head, other=0.0)
    asked = asked.to(tl.float32) * scale
    keys += slot * keys_slot + head * keys_head
    values += slot * values_slot + head * values_head
    if QUANTISED:
        key_scales += slot * key_scales_slot + head * key_scales_head
        value_scales += slot * value_scales_slot + head * value_scales_head

    top = tl.full([BLOCK_KEYS], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK_KEYS], tl.float32)
    sums = tl.zeros([BLOCK_KEYS, BLOCK_DIM], tl.float32)
    # Loads are only overlapped with arithmetic in a loop without `tl.dot` where stages are asked
    # for on the loop itself.
    for first in tl.range(begin, end, BLOCK_KEYS, num_stages=3):
        places = first + lanes
        live = places < end
        mask = live[:, None] & in_head[None, :]
        key = tl.load(keys + places[:, None] * keys_position + dims[None, :], mask=mask, other=0)
        value = tl.load(
            values + places[:, None] * values_position + dims[None, :], mask=mask, other=0
        )
        score = tl.sum(asked[None, :] * _wide(key, QUANTISED, NATIVE_FLOAT8), axis=1)
        share = tl.full([BLOCK_KEYS], 1.0, tl.float32)
        if QUANTISED:
            score *= tl.load(key_scales + places * key_scales_position, mask=live, other=0.0)
            share = tl.load(value_scales + places * value_scales_position, mask=live, other=0.0)
        score = tl.where(live, score, float("-inf"))
        raised = tl.maximum(top, score)
        base = tl.where(raised == float("-inf"), 0.0, raised)
        shrink = tl.exp2(top - base)
        weight = tl.exp2(score - base)
        mass = mass * shrink + weight
        sums = sums * shrink[:, None]
        sums += (weight * share)[:, None] * _wide(value, QUANTISED, NATIVE_FLOAT8)
        top = raised

    highest = tl.max(top, axis=0)
    if HAS_NEW:
        # The first split has the new token, whose position nobody reads from the cache.
        place = length - 1
        stored = (split == 0) & (place >= 0) & (place < positions)
        new_mask = in_head & (split == 0)
        key = tl.load(
            new_keys + row * new_keys_row + head * new_keys_head + dims, mask=new_mask, other=0.0
        ).to(tl.float32)
        value = tl.load(
            new_values + row * new_values_row + head * new_values_head + dims,
            mask=new_mask,
            other=0.0,
        ).to(tl.float32)
        key_at = keys + place.to(tl.int64) * keys_position + dims
        value_at = values + place.to(tl.int64) * values_position + dims
        if QUANTISED:
            key_scale = _scales_of(key, 0)
            value_scale = _scales_of(value, 0)
            key_byte = _quantised(key, key_scale)
            value_byte = _quantised(value, value_scale)
            tl.store(key_at, key_byte, mask=in_head & stored)
            tl.store(value_at, value_byte, mask=in_head & stored)
            tl.store(key_scales + place * key_scales_position, key_scale, mask=stored)
            tl.store(value_scales + place * value_scales_position, value_scale, mask=stored)
            key = float8_to_float32(key_byte, NATIVE_FLOAT8) * key_scale
            value = float8_to_float32(value_byte, NATIVE_FLOAT8) * value_scale
        else:
            key_kept = key.to(keys.dtype.element_ty)
            value_kept = value.to(values.dtype.element_ty)
            tl.store(key_at, key_kept, mask=in_head & stored)
            tl.store(value_at, value_kept, mask=in_head & stored)
            key = key_kept.to(tl.float32)
            value = value_kept.to(tl.float32)
        own = tl.sum(asked * key, axis=0)
        own = tl.where(stored & (place < limit), own, float("-inf"))
        highest = tl.maximum(highest, own)

    base = tl.where(highest == float("-inf"), 0.0, highest)
    share = tl.exp2(top - base)
    whole = tl.sum(mass * share, axis=0)
    result = tl.sum(sums * share[:, None], axis=0)
    if HAS_NEW:
        own_weight = tl.exp2(own - base)
        whole += own_weight
        result += own_weight * value
    divisor = tl.where(whole > 0, whole, 1.0)
    result = result / divisor
    if not IS_SPLIT:
        at = (row * heads + head) * HEAD_DIM
        tl.store(out + at + dims, result.to(out.dtype.element_ty), mask=in_head)
    else:
        part = (row * heads + head) * tl.num_programs(1) + split
        weight = tl.where(whole > 0, base + tl.log2(divisor), float("-inf"))
        tl.store(out_weight + part, weight)
        tl.store(out + part * HEAD_DIM + dims, result, mask=in_head)


@triton.jit
def _absorb(score, value, top, mass, sums):
    # One block of keys into the running softmax of a block of queries.
    raised = tl.maximum(top, tl.max(score, axis=1))
    base = tl.where(raised == float("-inf"), 0.0, raised)
    shrink = tl.exp2(top - base)
    weight = tl.exp2(score - base[:, None])
    mass = mass * shrink + tl.sum(weight, axis=1)
    sums = sums * shrink[:, None]
    sums = tl.dot(weight.to(value.dtype), value, sums, input_precision="ieee")
    return raised, mass, sums


@triton.jit(do_not_specialize=["positions", "limit", "keys_per_split", "width"])
def _attend_many(
    query,
    keys,
    values,
    key_scales,
    value_scales,
    new_keys,
    new_values,
    slots,
    seen,
    out,
    out_weight,
    query_row,
    query_token,
    query_head,
    keys_slot,
    keys_position,
    keys_head,
    values_slot,
    values_position,
    values_head,
    key_scales_slot,
    key_scales_position,
    key_scales_head,
    value_scales_slot,
    value_scales_position,
    value_scales_head,
    new_keys_row,
    new_keys_token,
    new_keys_head,
    new_values_row,
    new_values_token,
    new_values_head,
    heads,
    positions,
    limit,
    keys_per_split,
    scale,
    width,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    CAUSAL: tl.constexpr,
    DOT: tl.constexpr,
    HAS_NEW: tl.constexpr,
    QUANTISED: tl.constexpr,
    NATIVE_FLOAT8: tl.constexpr,
    IS_SPLIT: tl.constexpr,
):
    # One block of queries of one row and head over one split.
    blocks = tl.cdiv(width, BLOCK_QUERIES)
    block = tl.program_id(0) % blocks
    head = tl.program_id(0) // blocks % heads
    row = (tl.program_id(0) // blocks // heads).to(tl.int64)
    split = tl.program_id(1)
    slot = tl.load(slots + row).to(tl.int64)
    length = tl.load(seen + row).to(tl.int32)

    tokens = block * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    in_row = tokens < width
    if HAS_NEW:  # of the cache everybody sees what was there before
        cached = tl.minimum(length - 1, limit)
        visible = tl.zeros_like(tokens) + cached
    elif CAUSAL:
        visible = tl.minimum(length + tokens, limit)
        last = tl.minimum((block + 1) * BLOCK_QUERIES, width) - 1
        cached = tl.minimum(length + last, limit)
    else:
        cached = tl.minimum(length, limit)
        visible = tl.zeros_like(tokens) + cached
    begin = split * keys_per_split
    end = tl.minimum(begin + keys_per_split, cached)
    visible = tl.minimum(visible, end)

    dims = tl.arange(0, BLOCK_DIM)
    in_head = dims < HEAD_DIM
    asked = tl.load(
        query + row * query_row + tokens[:, None] * query_token + head * query_head + dims[None, :],
        mask=in_row[:, None] & in_head[None, :],
        other=0.0,
    ).to(DOT)
    keys += slot * keys_slot + head * keys_head
    values += slot * values_slot + head * values_head
    if QUANTISED:
        key_scales += slot * key_scales_slot + head * key_scales_head
        value_scales += slot * value_scales_slot + head * value_scales_head

    top = tl.full([BLOCK_QUERIES], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK_QUERIES], tl.float32)
    sums = tl.zeros([BLOCK_QUERIES, BLOCK_DIM], tl.float32)
    for first in tl.range(begin, end, BLOCK_KEYS):
        places = first + tl.arange(0, BLOCK_KEYS)
        live = places < end
        mask = live[:, None] & in_head[None, :]
        key = tl.load(keys + places[:, None] * keys_position + dims[None, :], mask=mask, other=0)
        value = tl.load(
            values + places[:, None] * values_position + dims[None, :], mask=mask, other=0
        )
        if QUANTISED:
            key_scale = tl.load(key_scales + places * key_scales_position, mask=live, other=0.0)
            value_scale = tl.load(
                value_scales + places * value_scales_position, mask=live, other=0.0
            )
            key = float8_to_float32(key, NATIVE_FLOAT8).to(DOT)
            value = (float8_to_float32(value, NATIVE_FLOAT8) * value_scale[:, None]).to(DOT)
        else:
            key = key.to(DOT)
            value = value.to(DOT)
        score = tl.dot(asked, tl.trans(key), input_precision="ieee") * scale
        if QUANTISED:
            score *= key_scale[None, :]
        score = tl.where(places[None, :] < visible[:, None], score, float("-inf"))
        top, mass, sums = _absorb(score, value, top, mass, sums)

    if HAS_NEW:
        # The first split has the new tokens, whose positions nobody reads from the cache. Each
        # of its programs stores those of its own queries, the last that they can see.
        own = block * BLOCK_QUERIES
        for first in tl.range(0, tl.where(split == 0, own + BLOCK_QUERIES, 0), BLOCK_QUERIES):
            news = first + tl.arange(0, BLOCK_QUERIES)
            places = length - 1 + news
            inside = (news < width) & (places >= 0) & (places < positions)
            mask = (news < width)[:, None] & in_head[None, :]
            key = tl.load(
                new_keys
                + row * new_keys_row
                + news[:, None] * new_keys_token
                + head * new_keys_head
                + dims[None, :],
                mask=mask,
                other=0.0,
            ).to(tl.float32)
            value = tl.load(
                new_values
                + row * new_values_row
                + news[:, None] * new_values_token
                + head * new_values_head
                + dims[None, :],
                mask=mask,
                other=0.0,
            ).to(tl.float32)
            stored = inside & (first == own)
            store_mask = stored[:, None] & in_head[None, :]
            key_at = keys + places[:, None] * keys_position + dims[None, :]
            value_at = values + places[:, None] * values_position + dims[None, :]
            if QUANTISED:
                key_scale = _scales_of(key, 1)
                value_scale = _scales_of(value, 1)
                key_byte = _quantised(key, key_scale[:, None])
                value_byte = _quantised(value, value_scale[:, None])
                tl.store(key_at, key_byte, mask=store_mask)
                tl.store(value_at, value_byte, mask=store_mask)
                tl.store(key_scales + places * key_scales_position, key_scale, mask=stored)
                tl.store(value_scales + places * value_scales_position, value_scale, mask=stored)
                new_key = float8_to_float32(key_byte, NATIVE_FLOAT8).to(DOT)
                new_value = float8_to_float32(value_byte, NATIVE_FLOAT8) * value_scale[:, None]
                new_value = new_value.to(DOT)
            else:
                key_kept = key.to(keys.dtype.element_ty)
                value_kept = value.to(values.dtype.element_ty)
                tl.store(key_at, key_kept, mask=store_mask)
                tl.store(value_at, value_kept, mask=store_mask)
                new_key = key_kept.to(DOT)
                new_value = value_kept.to(DOT)
            score = tl.dot(asked, tl.trans(new_key), input_precision="ieee") * scale
            if QUANTISED:
                score *= key_scale[None, :]
            attended = inside & (places < limit)
            score = tl.where(
                attended[None, :] & (news[None, :] <= tokens[:, None]), score, float("-inf")
            )
            top, mass, sums = _absorb(score, new_value, top, mass, sums)

    divisor = tl.where(mass > 0, mass, 1.0)
    result = sums / divisor[:, None]
    out_mask = in_row[:, None] & in_head[None, :]
    if not IS_SPLIT:
        at = ((row * width + tokens) * heads + head) * HEAD_DIM
        tl.store(out + at[:, None] + dims[None, :], result.to(out.dtype.element_ty), mask=out_mask)
    else:
        part = ((row * heads + head) * tl.num_programs(1) + split) * width + tokens
        weight = tl.where(mass > 0, top + tl.log2(divisor), float("-inf"))
        tl.store(out_weight + part, weight, mask=in_row)
        tl.store(
            out + part[:, None] * HEAD_DIM + dims[None, :],
            result,
            mask=out_mask & (mass > 0)[:, None],
        )


@triton.jit(do_not_specialize=["width", "num_splits"])
def _combine(
    part,
    part_weight,
    out,
    heads,
    width,
    num_splits,
    BLOCK_SPLITS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    # The splits of one query of one head, weighed by the logarithms of their sums. A split that
    # saw nothing has minus infinity, and its part may be anything.
    row = (tl.program_id(0) // width).to(tl.int64)
    token = tl.program_id(0) % width
    head = tl.program_id(1)
    splits = tl.arange(0, BLOCK_SPLITS)
    dims = tl.arange(0, BLOCK_DIM)
    at = ((row * heads + head) * num_splits + splits) * width + token
    weight = tl.load(part_weight + at, mask=splits < num_splits, other=float("-inf"))
    live = weight > float("-inf")
    in_head = dims < HEAD_DIM
    vectors = tl.load(
        part + at[:, None] * HEAD_DIM + dims[None, :],
        mask=live[:, None] & in_head[None, :],
        other=0.0,
    )
    highest = tl.max(weight, axis=0)
    share = tl.exp2(weight - tl.where(highest == float("-inf"), 0.0, highest))
    whole = tl.sum(share, axis=0)
    result = tl.sum(vectors * share[:, None], axis=0) / tl.where(whole > 0, whole, 1.0)
    at_out = ((row * width + token) * heads + head) * HEAD_DIM
    tl.store(out + at_out + dims, result.to(out.dtype.element_ty), mask=in_head)


@triton.jit(do_not_specialize=["count", "positions"])
def _store(
    new_keys,
    new_values,
    keys,
    values,
    key_scales,
    value_scales,
    slots,
    starts,
    new_keys_row,
    new_keys_token,
    new_keys_head,
    new_values_row,
    new_values_token,
    new_values_head,
    keys_slot,
    keys_position,
    keys_head,
    values_slot,
    values_position,
    values_head,
    key_scales_slot,
    key_scales_position,
    key_scales_head,
    value_scales_slot,
    value_scales_position,
    value_scales_head,
    heads,
    count,
    positions,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    QUANTISED: tl.constexpr,
    HAS_STARTS: tl.constexpr,
):
    # A block of vectors of one row and head. Heads are neighbours, as they are in what is read.
    head = tl.program_id(0) % heads
    blocks = tl.cdiv(count, BLOCK_KEYS)
    block = tl.program_id(0) // heads % blocks
    row = (tl.program_id(0) // heads // blocks).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    news = block * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    places = news
    if HAS_STARTS:
        places += tl.load(starts + row).to(tl.int32)
    live = (news < count) & (places >= 0) & (places < positions)
    dims = tl.arange(0, BLOCK_DIM)
    mask = live[:, None] & (dims < HEAD_DIM)[None, :]
    key = tl.load(
        new_keys
        + row * new_keys_row
        + news[:, None].to(tl.int64) * new_keys_token
        + head * new_keys_head
        + dims[None, :],
        mask=mask,
        other=0.0,
    ).to(tl.float32)
    value = tl.load(
        new_values
        + row * new_values_row
        + news[:, None].to(tl.int64) * new_values_token
        + head * new_values_head
        + dims[None, :],
        mask=mask,
        other=0.0,
    ).to(tl.float32)
    key_at = keys + slot * keys_slot + head * keys_head
    key_at += places[:, None] * keys_position + dims[None, :]
    value_at = values + slot * values_slot + head * values_head
    value_at += places[:, None] * values_position + dims[None, :]
    if QUANTISED:
        key_scale = _scales_of(key, 1)
        value_scale = _scales_of(value, 1)
        tl.store(key_at, _quantised(key, key_scale[:, None]), mask=mask)
        tl.store(value_at, _quantised(value, value_scale[:, None]), mask=mask)
        key_scale_at = key_scales + slot * key_scales_slot + head * key_scales_head
        value_scale_at = value_scales + slot * value_scales_slot + head * value_scales_head
        tl.store(key_scale_at + places * key_scales_position, key_scale, mask=live)
        tl.store(value_scale_at + places * value_scales_position, value_scale, mask=live)
    else:
        tl.store(key_at, key.to(keys.dtype.element_ty), mask=mask)
        tl.store(value_at, value.to(values.dtype.element_ty), mask=mask)


@triton.jit
def _alignment_scores(
    asked,
    keys,
    key_scales,
    keys_position,
    key_scales_position,
    places,
    end,
    scale,
    DOT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    QUANTISED: tl.constexpr,
    NATIVE_FLOAT8: tl.constexpr,
):
    # Scores [queries, keys] of one head, minus infinity from `end` on.
    dims = tl.arange(0, BLOCK_DIM)
    live = places < end
    key = tl.load(
        keys + places[:, None] * keys_position + dims[None, :],
        mask=live[:, None] & (dims < HEAD_DIM)[None, :],
        other=0,
    )
    key = _wide(key, QUANTISED, NATIVE_FLOAT8).to(DOT)
    score = tl.dot(asked, tl.trans(key), input_precision="ieee") * scale
    if QUANTISED:
        key_scale = tl.load(key_scales + places * key_scales_position, mask=live, other=0.0)
        score *= key_scale[None, :]
    return tl.where(live[None, :], score, float("-inf"))


@triton.jit(do_not_specialize=["width", "limit", "num_heads"])
def _alignment_masses(
    query,
    keys,
    key_scales,
    slots,
    seen,
    heads,
    masses,
    query_row,
    query_token,
    query_head,
    keys_slot,
    keys_position,
    keys_head,
    key_scales_slot,
    key_scales_position,
    key_scales_head,
    num_heads,
    width,
    limit,
    scale,
    DOT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    QUANTISED: tl.constexpr,
    NATIVE_FLOAT8: tl.constexpr,
):
    # The logarithm of the sum of exponentials of one head for a block of queries.
    blocks = tl.cdiv(width, BLOCK_QUERIES)
    block = tl.program_id(0) % blocks
    row = (tl.program_id(0) // blocks).to(tl.int64)
    number = tl.program_id(1)
    head = tl.load(heads + number).to(tl.int32)
    slot = tl.load(slots + row).to(tl.int64)
    end = tl.minimum(tl.load(seen + row).to(tl.int32), limit)
    tokens = block * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    dims = tl.arange(0, BLOCK_DIM)
    asked = tl.load(
        query + row * query_row + tokens[:, None] * query_token + head * query_head + dims[None, :],
        mask=(tokens < width)[:, None] & (dims < HEAD_DIM)[None, :],
        other=0.0,
    ).to(DOT)
    keys += slot * keys_slot + head * keys_head
    if QUANTISED:
        key_scales += slot * key_scales_slot + head * key_scales_head
    top = tl.full([BLOCK_QUERIES], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK_QUERIES], tl.float32)
    for first in tl.range(0, end, BLOCK_KEYS):
        score = _alignment_scores(
            asked,
            keys,
            key_scales,
            keys_position,
            key_scales_position,
            first + tl.arange(0, BLOCK_KEYS),
            end,
            scale,
            DOT,
            HEAD_DIM,
            BLOCK_DIM,
            QUANTISED,
            NATIVE_FLOAT8,
        )
        raised = tl.maximum(top, tl.max(score, axis=1))  # finite: each block has a live key
        mass = mass * tl.exp2(top - raised) + tl.sum(tl.exp2(score - raised[:, None]), axis=1)
        top = raised
    # Without a key to see this is minus infinity, and nobody reads it.
    at = (row * num_heads + number) * width + tokens
    tl.store(masses + at, top + tl.log2(tl.where(mass > 0, mass, 1.0)), mask=tokens < width)


@triton.jit(do_not_specialize=["width", "limit", "num_heads"])
def _alignment_sums(
    query,
    keys,
    key_scales,
    slots,
    seen,
    heads,
    masses,
    total,
    query_row,
    query_token,
    query_head,
    keys_slot,
    keys_position,
    keys_head,
    key_scales_slot,
    key_scales_position,
    key_scales_head,
    total_row,
    total_token,
    num_heads,
    width,
    limit,
    scale,
    DOT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    QUANTISED: tl.constexpr,
    NATIVE_FLOAT8: tl.constexpr,
):
    # The probabilities of a block of queries for a block of keys, one head after the other.
    blocks = tl.cdiv(width, BLOCK_QUERIES)
    block = tl.program_id(0) % blocks
    row = (tl.program_id(0) // blocks).to(tl.int64)
    first = tl.program_id(1) * BLOCK_KEYS
    end = tl.minimum(tl.load(seen + row).to(tl.int32), limit)
    if first >= end:
        return
    slot = tl.load(slots + row).to(tl.int64)
    tokens = block * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    in_row = tokens < width
    dims = tl.arange(0, BLOCK_DIM)
    places = first + tl.arange(0, BLOCK_KEYS)
    keys += slot * keys_slot
    if QUANTISED:
        key_scales += slot * key_scales_slot
    added = tl.zeros([BLOCK_QUERIES, BLOCK_KEYS], tl.float32)
    for number in tl.range(0, num_heads):
        head = tl.load(heads + number).to(tl.int32)
        asked = tl.load(
            query
            + row * query_row
            + tokens[:, None] * query_token
            + head * query_head
            + dims[None, :],
            mask=in_row[:, None] & (dims < HEAD_DIM)[None, :],
            other=0.0,
        ).to(DOT)
        head_scales = key_scales
        if QUANTISED:
            head_scales = key_scales + head * key_scales_head
        score = _alignment_scores(
            asked,
            keys + head * keys_head,
            head_scales,
            keys_position,
            key_scales_position,
            places,
            end,
            scale,
            DOT,
            HEAD_DIM,
            BLOCK_DIM,
            QUANTISED,
            NATIVE_FLOAT8,
        )
        at = (row * num_heads + number) * width + tokens
        mass = tl.load(masses + at, mask=in_row, other=0.0)
        added += tl.exp2(score - mass[:, None])
    total_at = (
        total + row * total_row + tokens[:, None].to(tl.int64) * total_token + places[None, :]
    )
    mask = in_row[:, None] & (places < end)[None, :]
    tl.store(total_at, tl.load(total_at, mask=mask, other=0.0) + added, mask=mask)
