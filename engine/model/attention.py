"""Attention over caches that are values: rows of slots, addressed in place.

Tokens of a batch are packed: one row of the batch after the other, without padding. `Packed`
says which tokens belong to which slot; a back end attends each row's queries to exactly that
row's keys, so no row's result depends on its neighbours.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Keys and values of one decoder layer, a row per slot, in a number format of their own.

    Self-attention is written token by token, so tokens come before heads; cross-attention is
    written once and read whole, so each head's positions lie together.
    """

    self_keys: Tensor  # [slots, n_text_ctx, heads, head_dim]
    self_values: Tensor
    cross_keys: Tensor  # [slots, heads, n_audio_ctx, head_dim]
    cross_values: Tensor


@dataclass(frozen=True, slots=True)
class Packed:
    """The layout of packed tokens.

    `spans` holds (slot index, first position, number of tokens) of each row in order,
    `contexts` the encoded positions of each row; `slots` and `positions` [tokens] repeat slot
    and position per token, int64 on the device.
    """

    spans: tuple[tuple[int, int, int], ...]
    contexts: tuple[int, ...]
    slots: Tensor
    positions: Tensor

    @classmethod
    def build(
        cls,
        spans: tuple[tuple[int, int, int], ...],
        contexts: tuple[int, ...],
        device: torch.device,
    ) -> "Packed":
        """Lay out `spans`."""
        slots = [slot for slot, _, count in spans for _ in range(count)]
        positions = [start + offset for _, start, count in spans for offset in range(count)]
        staged = torch.tensor((slots, positions), dtype=torch.int64)
        slots_on_device, positions_on_device = staged.to(device, non_blocking=True).unbind()
        return cls(spans, contexts, slots_on_device, positions_on_device)


def self_attention(query: Tensor, cache: LayerCache, packed: Packed) -> Tensor:
    """Causal attention of packed tokens to everything up to themselves in their slot.

    `query` [tokens, heads, head_dim]; the cache already holds these tokens. Returns the same
    shape.
    """
    out = torch.empty_like(query)
    at = 0
    for slot, start, count in packed.spans:
        row = slice(at, at + count)
        length = start + count
        mask = None
        if start and count > 1:
            mask = torch.ones(count, length, dtype=torch.bool, device=query.device).tril(start)
        out[row] = _attend(
            query[row],
            cache.self_keys[slot, :length].transpose(0, 1),
            cache.self_values[slot, :length].transpose(0, 1),
            mask=mask,
            is_causal=start == 0 and count > 1,
        )
        at += count
    return out


def cross_attention(query: Tensor, cache: LayerCache, packed: Packed) -> Tensor:
    """Attention of packed tokens to the encoded window of their slot.

    `query` [tokens, heads, head_dim]; returns the same shape.
    """
    out = torch.empty_like(query)
    at = 0
    for (slot, _, count), context in zip(packed.spans, packed.contexts, strict=True):
        row = slice(at, at + count)
        out[row] = _attend(
            query[row], cache.cross_keys[slot, :, :context], cache.cross_values[slot, :, :context]
        )
        at += count
    return out


def _attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """One row: `query` and result [tokens, heads, head_dim], the others with heads first.

    In four dimensions: with three torch takes its slow path, at two to three times the cost.
    """
    attended = F.scaled_dot_product_attention(
        query.to(keys.dtype).transpose(0, 1)[None],
        keys[None],
        values[None],
        attn_mask=mask,
        is_causal=is_causal,
    )
    return attended[0].transpose(0, 1).to(query.dtype)


def cross_probabilities(
    query: Tensor, cache: LayerCache, packed: Packed, heads: list[int]
) -> list[Tensor]:
    """Where some heads look: for each row [len(heads), tokens of the row, positions], float32.

    The alignment heads tell where in the audio a token is spoken (openai/whisper `timing.py`).
    """
    scale = query.shape[-1] ** -0.5
    weights = []
    at = 0
    for (slot, _, count), context in zip(packed.spans, packed.contexts, strict=True):
        chosen = query[at : at + count, heads].transpose(0, 1).float()
        keys = cache.cross_keys[slot, heads, :context].float()
        weights.append((chosen @ keys.transpose(1, 2) * scale).softmax(dim=-1))
        at += count
    return weights
