"""Whisper's text decoder (openai/whisper `model.py`) over packed tokens and slot caches.

One form serves prefill, verification and single tokens: the tokens of all rows lie behind each
other, and the caches are arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.attention import (
    LayerCache,
    Packed,
    cross_attention,
    cross_probabilities,
    self_attention,
)
from engine.model.dims import ModelDims


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a pass over packed tokens gives.

    `hidden` [tokens, state], normalised. `alignment` holds for each row
    [alignment heads, tokens of the row, positions], float32, where it was asked for.
    """

    hidden: Tensor
    alignment: tuple[Tensor, ...]


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention and feed-forward, each behind a layer norm."""

    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        state = dims.n_text_state
        self.num_heads = dims.n_text_head
        self.self_attn_layer_norm = nn.LayerNorm(state)
        self.qkv_proj = nn.Linear(state, 3 * state)
        self.self_out_proj = nn.Linear(state, state)
        self.encoder_attn_layer_norm = nn.LayerNorm(state)
        self.cross_q_proj = nn.Linear(state, state)
        self.cross_kv_proj = nn.Linear(state, 2 * state)
        self.cross_out_proj = nn.Linear(state, state)
        self.final_layer_norm = nn.LayerNorm(state)
        self.fc1 = nn.Linear(state, dims.n_text_mlp)
        self.fc2 = nn.Linear(dims.n_text_mlp, state)

    def write_cross(self, encoded: Tensor, cache: LayerCache, slots: Sequence[int]) -> None:
        """Keep what cross-attention needs of `encoded` [rows, positions, state]."""
        rows, positions, _ = encoded.shape
        projected: Tensor = self.cross_kv_proj(encoded)
        keys, values = (
            projected.view(rows, positions, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        )
        for row, slot in enumerate(slots):
            cache.cross_keys[slot, :, :positions] = keys[row]
            cache.cross_values[slot, :, :positions] = values[row]

    def forward(
        self, hidden: Tensor, cache: LayerCache, packed: Packed, heads: list[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """`hidden` and the first result [tokens, state]; the second is what `heads` look at."""
        count = hidden.shape[0]
        qkv: Tensor = self.qkv_proj(self.self_attn_layer_norm(hidden))
        query, key, value = qkv.view(count, 3, self.num_heads, -1).unbind(1)
        cache.self_keys[packed.slots, packed.positions] = key.to(cache.self_keys.dtype)
        cache.self_values[packed.slots, packed.positions] = value.to(cache.self_values.dtype)
        attended = self_attention(query, cache, packed)
        hidden = hidden + self.self_out_proj(attended.view(count, -1))

        crossing: Tensor = self.cross_q_proj(self.encoder_attn_layer_norm(hidden))
        query = crossing.view(count, self.num_heads, -1)
        weights = cross_probabilities(query, cache, packed, heads) if heads else []
        attended = cross_attention(query, cache, packed)
        hidden = hidden + self.cross_out_proj(attended.view(count, -1))

        feed: Tensor = self.fc1(self.final_layer_norm(hidden))
        return hidden + self.fc2(F.gelu(feed)), weights


class TextDecoder(nn.Module):
    """Packed tokens to hidden states and logits."""

    def __init__(self, dims: ModelDims, alignment_heads: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(dims.n_vocab, dims.n_text_state)
        self.embed_positions = nn.Embedding(dims.n_text_ctx, dims.n_text_state)
        self.layers = nn.ModuleList(DecoderLayer(dims) for _ in range(dims.n_text_layer))
        self.layer_norm = nn.LayerNorm(dims.n_text_state)
        self._alignment_heads: list[list[int]] = [[] for _ in range(dims.n_text_layer)]
        for layer, head in alignment_heads:
            self._alignment_heads[layer].append(head)

    def write_cross(
        self, encoded: Tensor, caches: Sequence[LayerCache], slots: Sequence[int]
    ) -> None:
        """Fill the cross caches of `slots` from `encoded` [rows, positions, state]."""
        for layer, cache in zip(self.layers, caches, strict=True):
            cast("DecoderLayer", layer).write_cross(encoded, cache, slots)

    def forward(
        self, tokens: Tensor, packed: Packed, caches: Sequence[LayerCache], *, align: bool
    ) -> Decoded:
        """Run `tokens` [tokens]; `align` asks for the weights of the alignment heads."""
        hidden = self.embed_tokens(tokens) + self.embed_positions(packed.positions)
        weights: list[list[Tensor]] = []
        for layer, cache, heads in zip(self.layers, caches, self._alignment_heads, strict=True):
            hidden, looked = layer(hidden, cache, packed, heads if align else [])
            if looked:
                weights.append(looked)
        normed: Tensor = self.layer_norm(hidden)
        return Decoded(normed, tuple(torch.cat(row) for row in zip(*weights, strict=True)))

    def logits(self, hidden: Tensor) -> Tensor:
        """`hidden` [rows, state] to float32 logits [rows, n_vocab]; the embedding is tied."""
        return F.linear(hidden, self.embed_tokens.weight).float()
