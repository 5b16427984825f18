"""Attention over slot-indexed caches in plain torch: what the kernels do, to be read.

The twin of `engine.kernels.slot_attention`, and a back end of its own for devices without
Triton. It gathers the caches by slot, so it costs memory and time that the kernels do not, but
every shape depends on shapes and host integers alone: nothing here waits for the device, and
all of it can be captured in a CUDA graph.

Quantised caches hold float8_e4m3fn and one float32 scale per vector: a key is what is stored
times its scale. The scale is the vector's greatest magnitude over 448, the greatest float8.
"""

from typing import Final

import torch
from torch import Tensor

FLOAT8: Final = torch.float8_e4m3fn
FLOAT8_MAX: Final = 448.0
_NEVER: Final = float("-inf")


def slot_attention_plain(
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

    `query` [rows, width, heads, head_dim]; `keys`, `values` [slots, positions, heads, head_dim],
    float8 with `key_scales`, `value_scales` [slots, positions, heads] float32, else any float
    type; `slots`, `seen` [rows] int32 or int64. Query i of a row sees the first `seen` + i keys
    where `causal`, else the first `seen`, and none from `most` on. A query that sees nothing
    gets zeros.

    `new_keys`, `new_values` [rows, width, heads, head_dim] are those of the queries' own tokens,
    of which query i's stands at position `seen` - 1 + i. They are written to the cache before
    it is read; what would lie outside the cache is dropped. Only where `causal`.

    Scores, softmax and sums are float32. Returns [rows, width, heads, head_dim], contiguous, in
    the query's type. Raises ValueError where the arguments contradict each other.
    """
    check_caches(keys, values, key_scales, value_scales)
    check_new(new_keys, new_values, causal=causal)
    if new_keys is not None and new_values is not None:
        store_keys_values_plain(
            new_keys,
            new_values,
            keys,
            values,
            slots,
            key_scales=key_scales,
            value_scales=value_scales,
            starts=seen - 1,
        )
    most = min(most, keys.shape[1])
    places = torch.arange(most, device=query.device)
    later = torch.arange(query.shape[1], device=query.device) * int(causal)
    visible = places < (seen[:, None] + later)[:, :, None]  # [rows, width, most]

    scale: float = query.shape[-1] ** -0.5
    heads_first = query.float().transpose(1, 2)
    scores = heads_first @ _gathered(keys, key_scales, slots, most).permute(0, 2, 3, 1) * scale
    # A row that sees nothing is all NaN after the softmax: hence the second mask.
    weights = scores.masked_fill(~visible[:, None], _NEVER).softmax(dim=-1)
    weights = weights.masked_fill(~visible[:, None], 0.0)
    # What no query sees may be anything, NaN too, and zero times NaN is NaN.
    any_sees = visible.any(dim=1)[:, :, None, None]
    seen_values = _gathered(values, value_scales, slots, most).masked_fill(~any_sees, 0.0)
    attended = weights @ seen_values.transpose(1, 2)
    return attended.transpose(1, 2).to(query.dtype).contiguous()


def store_keys_values_plain(
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
    """Write consecutive keys and values of each row into its slot.

    `new_keys`, `new_values` [rows, count, heads, head_dim]; `keys`, `values`
    [slots, positions, heads, head_dim]; scales [slots, positions, heads] float32, with which
    the caches are float8; `slots`, `starts` [rows] int32 or int64. The first is written at
    position `starts` of the row, or 0; what would lie outside the cache is dropped. Raises
    ValueError where the arguments contradict each other.
    """
    check_caches(keys, values, key_scales, value_scales)
    count, positions = new_keys.shape[1], keys.shape[1]
    if not new_keys.numel():
        return
    first = slots.new_zeros(slots.shape) if starts is None else starts
    first = first.long()[:, None]
    # Shapes must not depend on the data, so a vector that is to be dropped is replaced by the
    # nearest that is not, and that one is written twice. A row that drops all of them writes
    # back what was there.
    offsets = torch.arange(count, device=slots.device)
    offsets = offsets.maximum(-first).minimum(positions - 1 - first)
    kept = (offsets >= 0) & (offsets < count)
    offsets = offsets.clamp(0, count - 1)
    at = (slots.long()[:, None], (first + offsets).clamp(0, positions - 1))
    chosen = (torch.arange(len(slots), device=slots.device)[:, None], offsets)
    for new, cache, scales in (
        (new_keys, keys, key_scales),
        (new_values, values, value_scales),
    ):
        vectors = new[chosen]
        if scales is None:
            _overwrite(cache, at, vectors.to(cache.dtype), kept)
        else:
            quantised, new_scales = quantise_plain(vectors)
            # Bytes, because not every torch indexes float8 on every device.
            _overwrite(cache.view(torch.uint8), at, quantised.view(torch.uint8), kept)
            _overwrite(scales, at, new_scales, kept)


def quantise_plain(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """`vectors` [..., head_dim] as float8 of the same shape, and their scales [...], float32."""
    exact = vectors.float()
    scales = exact.abs().amax(dim=-1) / FLOAT8_MAX
    return (exact / torch.where(scales > 0, scales, 1.0)[..., None]).to(FLOAT8), scales


def alignment_weights_plain(
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
    int32 or int64; `total` [rows, width, most] float32. Each of `heads` adds its probabilities
    over the first `seen` keys; what lies behind stays as it is. The alignment heads tell where
    in the audio a token is spoken (openai/whisper `timing.py`). Raises ValueError where the
    arguments contradict each other.
    """
    check_caches(keys, keys, key_scales, key_scales)
    most = min(total.shape[2], keys.shape[1])
    visible = torch.arange(most, device=query.device) < seen[:, None]  # [rows, most]
    heads = heads.long()
    chosen = query.index_select(2, heads).float().transpose(1, 2)
    looked_at = _gathered(keys, key_scales, slots, most).index_select(2, heads)
    scores = chosen @ looked_at.permute(0, 2, 3, 1) * query.shape[-1] ** -0.5
    unseen = ~visible[:, None, None]
    weights = scores.masked_fill(unseen, _NEVER).softmax(dim=-1).masked_fill(unseen, 0.0)
    total[:, :, :most] += weights.sum(dim=1)


def check_caches(
    keys: Tensor, values: Tensor, key_scales: Tensor | None, value_scales: Tensor | None
) -> None:
    """Raise ValueError unless exactly the float8 caches come with scales."""
    for cache, scales in ((keys, key_scales), (values, value_scales)):
        if (cache.dtype == FLOAT8) != (scales is not None):
            raise ValueError(
                f"a {cache.dtype} cache {'with' if scales is not None else 'without'}"
                " scales: float8 has them, nothing else does"
            )


def check_new(new_keys: Tensor | None, new_values: Tensor | None, *, causal: bool) -> None:
    """Raise ValueError where new keys and values are not together, or not causal."""
    if (new_keys is None) != (new_values is None):
        raise ValueError("new keys and new values come together")
    if new_keys is not None and not causal:
        raise ValueError("only causal attention has new keys")


def _gathered(cache: Tensor, scales: Tensor | None, slots: Tensor, most: int) -> Tensor:
    """The first `most` positions of each row's slot: [rows, most, heads, head_dim], float32."""
    slots = slots.long()
    vectors = cache[:, :most][slots].float()
    return vectors if scales is None else vectors * scales[:, :most][slots][..., None]


def _overwrite(cache: Tensor, at: tuple[Tensor, Tensor], new: Tensor, kept: Tensor) -> None:
    """Put `new` into `cache` where it is `kept` [rows, count]; what is there stays elsewhere."""
    mask = kept.view(*kept.shape, *(1,) * (new.dim() - kept.dim()))
    cache[at] = torch.where(mask, new, cache[at])
