"""Where the alignment heads look, added up over heads: probabilities, not attention."""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.checks import check_contiguous
from engine.kernels.float8 import has_native_float8, stored_bytes, widened
from engine.kernels.plain_attention import check_caches
from engine.kernels.tiles import (
    KEYS_PER_BLOCK,
    dot_type_of,
    first_strides,
    keys_per_block,
    queries_per_block,
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
    dot_type, exact = dot_type_of(query, keys)
    block_queries = queries_per_block(width, exact=exact)
    query_blocks = triton.cdiv(width, block_queries)
    block_keys = KEYS_PER_BLOCK // 2 if exact else keys_per_block(keys)
    masses = query.new_empty((rows, num_heads, width), dtype=torch.float32)
    tensors = (query, stored_bytes(keys), key_scales, slots, seen, heads, masses)
    strides = (*query.stride()[:3], *keys.stride()[:3], *first_strides(key_scales))
    numbers = (num_heads, width, limit, head_dim**-0.5 * math.log2(math.e))
    options: dict[str, Any] = {
        "DOT": dot_type,
        "HEAD_DIM": head_dim,
        "BLOCK_DIM": max(16, triton.next_power_of_2(head_dim)),
        "BLOCK_QUERIES": block_queries,
        "BLOCK_KEYS": block_keys,
        "QUANTISED": key_scales is not None,
        "NATIVE_FLOAT8": has_native_float8(query.device),
        "num_warps": 4,
        "num_stages": 2,
    }
    _alignment_masses[(rows * query_blocks, num_heads)](*tensors, *strides, *numbers, **options)
    _alignment_sums[(rows * query_blocks, triton.cdiv(limit, block_keys))](
        *tensors, total, *strides, *total.stride()[:2], *numbers, **options
    )


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
    key = widened(key, QUANTISED, NATIVE_FLOAT8).to(DOT)
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
