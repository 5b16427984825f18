"""Whisper's text decoder (openai/whisper `model.py`) over packed tokens and slot caches.

One form serves prefill, verification and single tokens: the tokens of all rows lie behind each
other, and the caches are arguments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.attention import KeysValues, LayerCache, Layout
from engine.model.dims import ModelDims
from engine.model.ops import PLAIN, Ops

StoreWindows = Callable[[KeysValues, Tensor, Tensor], None]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a pass over a batch of tokens gives.

    `hidden` [tokens, state], normalised. `looks` holds, for each layer with alignment heads,
    what the layout says of where they look, where that was asked for.
    """

    hidden: Tensor
    looks: tuple[Sequence[Tensor], ...]


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

    def cross_keys_values(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """What cross-attention needs of `encoded` [rows, positions, state].

        Keys and values, both [rows, positions, heads, head_dim].
        """
        rows, positions, _ = encoded.shape
        projected: Tensor = self.cross_kv_proj(encoded)
        keys, values = projected.view(rows, positions, 2, self.num_heads, -1).unbind(2)
        return keys, values

    def forward(
        self,
        hidden: Tensor,
        update: Tensor | None,
        cache: LayerCache,
        layout: Layout,
        heads: Sequence[int],
        ops: Ops,
    ) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """`hidden` [tokens, state] and what is to be added to it, before and after.

        The third result is where `heads` look.
        """
        count = hidden.shape[0]
        hidden, normed = ops.add_norm(hidden, update, self.self_attn_layer_norm)
        qkv: Tensor = self.qkv_proj(normed)
        query, key, value = qkv.view(count, 3, self.num_heads, -1).unbind(1)
        attended = layout.attend_self(query, key, value, cache.self_attn)
        update = self.self_out_proj(attended.reshape(count, -1))

        hidden, normed = ops.add_norm(hidden, update, self.encoder_attn_layer_norm)
        query = cast("Tensor", self.cross_q_proj(normed)).view(count, self.num_heads, -1)
        looks = layout.look(query, cache.cross_attn, heads) if heads else ()
        attended = layout.attend_cross(query, cache.cross_attn)
        update = self.cross_out_proj(attended.reshape(count, -1))

        hidden, normed = ops.add_norm(hidden, update, self.final_layer_norm)
        return hidden, self.fc2(ops.gelu(normed, self.fc1)), looks


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
        self, encoded: Tensor, caches: Sequence[LayerCache], store: StoreWindows
    ) -> None:
        """Have `store` fill the cross caches from `encoded` [rows, positions, state]."""
        for layer, cache in zip(self.layers, caches, strict=True):
            keys, values = cast("DecoderLayer", layer).cross_keys_values(encoded)
            store(cache.cross_attn, keys, values)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """`tokens` [tokens] where they stand in their rows, to [tokens, state]."""
        embedded: Tensor = self.embed_tokens(tokens) + self.embed_positions(positions)
        return embedded

    def forward(
        self,
        hidden: Tensor,
        layout: Layout,
        caches: Sequence[LayerCache],
        *,
        align: bool,
        ops: Ops = PLAIN,
    ) -> Decoded:
        """Run embedded tokens `hidden` [tokens, state]; `align` asks where alignment heads look."""
        update: Tensor | None = None
        looks: list[Sequence[Tensor]] = []
        for layer, cache, heads in zip(self.layers, caches, self._alignment_heads, strict=True):
            hidden, update, looked = layer(
                hidden, update, cache, layout, heads if align else (), ops
            )
            if looked:
                looks.append(looked)
        return Decoded(ops.add_norm(hidden, update, self.layer_norm)[1], tuple(looks))

    def logits(self, hidden: Tensor) -> Tensor:
        """`hidden` [rows, state] to logits [rows, n_vocab] in its format; the embedding is tied."""
        return F.linear(hidden, self.embed_tokens.weight)
