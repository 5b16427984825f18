"""Attention over caches that are values: rows of slots, addressed in place.

A batch is tokens of several rows, each row a slot. Which token belongs where is a `Layout`, and
there are two. `Packed` lays the tokens of rows behind each other without padding and attends row
by row over views of the caches; the host knows every length. It serves processors. `Padded`
(engine.model.padded) gives every row the same number of tokens and reads slots and lengths on the
device, so that a CUDA graph can hold it. In both, no row's result depends on its neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.plain_attention import quantise_plain
from engine.model.staging import to_device


@dataclass(frozen=True, slots=True)
class KeysValues:
    """Keys and values of one attention, a row per slot, in a number format of their own.

    `keys` and `values` [slots, positions, heads, head_dim], in whatever order of memory. The
    scales [slots, positions, heads] float32 belong to float8: what is meant is stored × scale.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What one decoder layer remembers: of the tokens so far, and of the encoded window.

    Self-attention is written token by token, so tokens come before heads in memory;
    cross-attention is written once and read whole, so each head's positions lie together.
    """

    self_attn: KeysValues
    cross_attn: KeysValues


class Layout(Protocol):
    """Which tokens of a batch belong to which slot, and attention over them.

    Queries, keys and values are [tokens, heads, head_dim], results as the queries.
    """

    def attend_self(self, query: Tensor, key: Tensor, value: Tensor, cache: KeysValues) -> Tensor:
        """Keep keys and values of the tokens; attend to all up to themselves in their slot."""

    def attend_cross(self, query: Tensor, cache: KeysValues) -> Tensor:
        """Attend to the encoded window of the tokens' slot."""

    def look(self, query: Tensor, cache: KeysValues, heads: Sequence[int]) -> Sequence[Tensor]:
        """Where some heads look, in a form of the layout's own; probabilities in float32."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The tokens of all rows behind each other, as the host knows them.

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
        staged = to_device(np.array((slots, positions), dtype=np.int64), device)
        slots_on_device, positions_on_device = staged.unbind()
        return cls(spans, contexts, slots_on_device, positions_on_device)

    def attend_self(self, query: Tensor, key: Tensor, value: Tensor, cache: KeysValues) -> Tensor:
        """Causal attention, one row after the other."""
        _store(cache.keys, cache.key_scales, (self.slots, self.positions), key)
        _store(cache.values, cache.value_scales, (self.slots, self.positions), value)
        out = torch.empty_like(query)
        at = 0
        for slot, start, count in self.spans:
            row = slice(at, at + count)
            length = start + count
            mask = None
            if start and count > 1:
                mask = torch.ones(count, length, dtype=torch.bool, device=query.device).tril(start)
            keys, values = _row(cache, slot, length, query.dtype)
            out[row] = _attend(
                query[row], keys, values, mask=mask, is_causal=start == 0 and count > 1
            )
            at += count
        return out

    def attend_cross(self, query: Tensor, cache: KeysValues) -> Tensor:
        """Attention to each row's own context, one row after the other."""
        out = torch.empty_like(query)
        at = 0
        for (slot, _, count), context in zip(self.spans, self.contexts, strict=True):
            row = slice(at, at + count)
            keys, values = _row(cache, slot, context, query.dtype)
            out[row] = _attend(query[row], keys, values)
            at += count
        return out

    def look(self, query: Tensor, cache: KeysValues, heads: Sequence[int]) -> list[Tensor]:
        """For each row [len(heads), tokens of the row, positions], float32.

        The alignment heads tell where in the audio a token is spoken (openai/whisper
        `timing.py`).
        """
        scale = query.shape[-1] ** -0.5
        weights = []
        at = 0
        for (slot, _, count), context in zip(self.spans, self.contexts, strict=True):
            # Head by head: a list of heads as an index would have to be fetched by a GPU.
            queries = torch.stack([query[at : at + count, head] for head in heads]).float()
            all_keys = _row(cache, slot, context, torch.float32)[0]
            keys = torch.stack([all_keys[head] for head in heads]).float()
            weights.append((queries @ keys.transpose(1, 2) * scale).softmax(dim=-1))
            at += count
        return weights


def _store(
    target: Tensor, scales: Tensor | None, where: tuple[Tensor, ...] | EllipsisType, new: Tensor
) -> None:
    """Write `new` at `where` of a cache, in the cache's number format."""
    if scales is None:
        target[where] = new.to(target.dtype)
        return
    quantised, new_scales = quantise_plain(new)
    # Indexed assignment of float8 is not there on every device; of bytes it is.
    target.view(torch.uint8)[where] = quantised.view(torch.uint8)
    scales[where] = new_scales


def store_windows(
    cache: KeysValues,
    slots: Sequence[int],
    keys: Tensor,
    values: Tensor,
    starts: Sequence[int] | None = None,
) -> None:
    """Keep `keys` and `values` [rows, positions, heads, head_dim] of slots, from `starts` or 0."""
    for row, slot in enumerate(slots):
        start = starts[row] if starts is not None else 0
        part = slice(start, start + keys.shape[1])
        _store(cache.keys[slot, part], _part(cache.key_scales, slot, part), ..., keys[row])
        _store(cache.values[slot, part], _part(cache.value_scales, slot, part), ..., values[row])


def _part(scales: Tensor | None, slot: int, part: slice) -> Tensor | None:
    return None if scales is None else scales[slot, part]


def _row(cache: KeysValues, slot: int, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The first `length` keys and values of a slot, heads first; a view unless quantised."""
    keys = cache.keys[slot, :length].transpose(0, 1)
    values = cache.values[slot, :length].transpose(0, 1)
    if cache.key_scales is None or cache.value_scales is None:
        return keys, values
    key_scales = cache.key_scales[slot, :length].transpose(0, 1)[..., None]
    value_scales = cache.value_scales[slot, :length].transpose(0, 1)[..., None]
    return (keys.float() * key_scales).to(dtype), (values.float() * value_scales).to(dtype)


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
