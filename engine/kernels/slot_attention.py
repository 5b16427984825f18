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
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.checks import check_contiguous
from engine.kernels.float8 import (
    float8_to_float32,
    has_native_float8,
    quantised,
    scales_of,
    stored_bytes,
    widened,
)
from engine.kernels.plain_attention import check_caches, check_new
from engine.kernels.tiles import (
    KEYS_PER_BLOCK,
    dot_type_of,
    first_strides,
    keys_per_block,
    num_multiprocessors,
    queries_per_block,
)

# Fewer keys are read whole: putting parts together takes a launch, and that takes longer.
MIN_KEYS_TO_SPLIT: Final = 513
# Where the device fills two programs per multiprocessor anyway the keys stay whole; else they
# are split until there are about four.
ENOUGH_PROGRAMS_PER_MULTIPROCESSOR: Final = 2
WANTED_PROGRAMS_PER_MULTIPROCESSOR: Final = 4


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
    dot_type, exact = dot_type_of(query, keys)
    block_queries = queries_per_block(width, exact=exact)
    query_blocks = triton.cdiv(width, block_queries)
    programs = rows * heads * query_blocks
    limit = min(most, keys.shape[1])
    splits = num_splits(programs, limit, num_multiprocessors(query.device))
    part, weight = out, out  # the second is not touched where the keys are whole
    if splits > 1:
        part = out.new_empty((rows, heads, splits, width, head_dim), dtype=torch.float32)
        weight = part.new_empty(part.shape[:-1])

    tensors = (
        query,
        stored_bytes(keys),
        stored_bytes(values),
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
        *first_strides(key_scales),
        *first_strides(value_scales),
        *first_strides(new_keys),
        *first_strides(new_values),
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
        "NATIVE_FLOAT8": has_native_float8(query.device),
        "IS_SPLIT": splits > 1,
        "num_warps": 4,
    }
    if width == 1:
        _attend_one[(rows * heads, splits)](
            *tensors, *strides, *numbers, BLOCK_KEYS=keys_per_block(keys), **options
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
            BLOCK_KEYS=KEYS_PER_BLOCK // 2 if exact else keys_per_block(keys),
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


def _keys_per_split(most: int, splits: int) -> int:
    """A whole number of blocks, such that `splits` of them hold `most` keys."""
    return max(1, -(-most // (KEYS_PER_BLOCK * splits))) * KEYS_PER_BLOCK


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
        score = tl.sum(asked[None, :] * widened(key, QUANTISED, NATIVE_FLOAT8), axis=1)
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
        sums += (weight * share)[:, None] * widened(value, QUANTISED, NATIVE_FLOAT8)
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
            key_scale = scales_of(key, 0)
            value_scale = scales_of(value, 0)
            key_byte = quantised(key, key_scale)
            value_byte = quantised(value, value_scale)
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
                key_scale = scales_of(key, 1)
                value_scale = scales_of(value, 1)
                key_byte = quantised(key, key_scale[:, None])
                value_byte = quantised(value, value_scale[:, None])
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
