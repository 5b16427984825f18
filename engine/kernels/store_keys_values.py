"""Keys and values of whole windows, written to their slots in one launch, quantised on the way."""

import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.checks import check_contiguous
from engine.kernels.float8 import quantised, scales_of, stored_bytes
from engine.kernels.plain_attention import check_caches
from engine.kernels.tiles import KEYS_PER_BLOCK, first_strides


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
        stored_bytes(keys),
        stored_bytes(values),
        key_scales,
        value_scales,
        slots,
        starts,
        *new_keys.stride()[:3],
        *new_values.stride()[:3],
        *keys.stride()[:3],
        *values.stride()[:3],
        *first_strides(key_scales),
        *first_strides(value_scales),
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
        key_scale = scales_of(key, 1)
        value_scale = scales_of(value, 1)
        tl.store(key_at, quantised(key, key_scale[:, None]), mask=mask)
        tl.store(value_at, quantised(value, value_scale[:, None]), mask=mask)
        key_scale_at = key_scales + slot * key_scales_slot + head * key_scales_head
        value_scale_at = value_scales + slot * value_scales_slot + head * value_scales_head
        tl.store(key_scale_at + places * key_scales_position, key_scale, mask=live)
        tl.store(value_scale_at + places * value_scales_position, value_scale, mask=live)
    else:
        tl.store(key_at, key.to(keys.dtype.element_ty), mask=mask)
        tl.store(value_at, value.to(values.dtype.element_ty), mask=mask)
