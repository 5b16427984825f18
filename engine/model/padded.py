"""A layout of equal rows that lives on the device: what a CUDA graph can hold.

Every row has the same number of tokens; those behind a row's own are computed and thrown away.
Slots, first positions and contexts are tensors, so that one captured graph serves any slots of
any length. A token behind a row's own is stored behind the row's own too: whoever feeds that
position later writes it first, and until then nobody sees it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.model.attention import KeysValues
from engine.model.backends import AttentionBackend


@dataclass(frozen=True, slots=True)
class Padded:
    """Rows of `width` tokens each.

    `slots`, `seen` and `contexts` [rows] int64: a row's slot, how many tokens its first one sees
    (itself is the last of them) and how many positions its window has. No query sees more than
    `most_tokens` tokens or `most_positions` positions.
    """

    backend: AttentionBackend
    slots: Tensor
    seen: Tensor
    contexts: Tensor
    width: int
    most_tokens: int
    most_positions: int

    def attend_self(self, query: Tensor, key: Tensor, value: Tensor, cache: KeysValues) -> Tensor:
        """Causal attention; the back end stores the new keys and values on the way."""
        attended = self.backend.slot_attention(
            self._rows(query),
            cache.keys,
            cache.values,
            self.slots,
            self.seen,
            causal=True,
            most=self.most_tokens,
            key_scales=cache.key_scales,
            value_scales=cache.value_scales,
            new_keys=self._rows(key),
            new_values=self._rows(value),
        )
        return attended.flatten(0, 1)

    def attend_cross(self, query: Tensor, cache: KeysValues) -> Tensor:
        """Attention to each row's context."""
        attended = self.backend.slot_attention(
            self._rows(query),
            cache.keys,
            cache.values,
            self.slots,
            self.contexts,
            causal=False,
            most=self.most_positions,
            key_scales=cache.key_scales,
            value_scales=cache.value_scales,
        )
        return attended.flatten(0, 1)

    def look(self, query: Tensor, cache: KeysValues, heads: Sequence[int]) -> list[Tensor]:
        """One tensor [rows, width, most_positions]: the probabilities of `heads`, added up."""
        total = query.new_zeros(
            (len(self.slots), self.width, self.most_positions), dtype=torch.float32
        )
        self.backend.alignment_weights(
            self._rows(query),
            cache.keys,
            self.slots,
            self.contexts,
            self.backend.on_device(tuple(heads), query.device),
            total,
            key_scales=cache.key_scales,
        )
        return [total]

    def _rows(self, tokens: Tensor) -> Tensor:
        """[tokens, heads, head_dim] as [rows, width, heads, head_dim], without copying."""
        return tokens.view(-1, self.width, *tokens.shape[1:])
