"""Whisper's audio encoder (openai/whisper `model.py`), for any context up to 30 s.

Parameter names are the Hugging Face checkpoint's, except that the three input projections of
an attention are one: `qkv_proj`.
"""

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.audio.units import FRAMES_PER_POSITION
from engine.model.dims import ModelDims
from engine.model.ops import PLAIN, Ops

# Of a layer's number, and queries, keys and values [rows, positions, heads, head_dim], to a result
# of that shape.
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]

# Left of where an extension begins: its convolutions see the padding instead of what is there.
_HALO_POSITIONS: Final = 2
HALO_FRAMES: Final = FRAMES_PER_POSITION * _HALO_POSITIONS


def attend_sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention without mask by torch's own back end."""
    attended = F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    )
    return attended.transpose(1, 2)


def attend_within(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same, in every layer."""
    return attend_sdpa(query, key, value)


class EncoderLayer(nn.Module):
    """Self-attention without mask, then the feed-forward, each behind a layer norm."""

    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        state = dims.n_audio_state
        self.num_heads = dims.n_audio_head
        self.self_attn_layer_norm = nn.LayerNorm(state)
        self.qkv_proj = nn.Linear(state, 3 * state)
        self.out_proj = nn.Linear(state, state)
        self.final_layer_norm = nn.LayerNorm(state)
        self.fc1 = nn.Linear(state, dims.n_audio_mlp)
        self.fc2 = nn.Linear(dims.n_audio_mlp, state)

    def forward(
        self, number: int, hidden: Tensor, update: Tensor | None, attend: Attend, ops: Ops
    ) -> tuple[Tensor, Tensor]:
        """`hidden` [rows, positions, state] and what is to be added to it, before and after."""
        rows, positions, state = hidden.shape
        hidden, normed = ops.add_norm(hidden, update, self.self_attn_layer_norm)
        qkv: Tensor = self.qkv_proj(normed)
        query, key, value = qkv.view(rows, positions, 3, self.num_heads, -1).unbind(2)
        attended = attend(number, query, key, value)
        update = self.out_proj(attended.reshape(rows, positions, state))
        hidden, normed = ops.add_norm(hidden, update, self.final_layer_norm)
        return hidden, self.fc2(ops.gelu(normed, self.fc1))


class AudioEncoder(nn.Module):
    """Features to encoder states."""

    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        state = dims.n_audio_state
        self.conv1 = nn.Conv1d(dims.n_mels, state, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(state, state, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(dims.n_audio_ctx, state)
        self.layers = nn.ModuleList(EncoderLayer(dims) for _ in range(dims.n_audio_layer))
        self.layer_norm = nn.LayerNorm(state)

    def forward(self, features: Tensor, attend: Attend = attend_within, ops: Ops = PLAIN) -> Tensor:
        """`features` [rows, n_mels, 2 × positions] to [rows, positions, state]."""
        hidden = self._convolve(features)
        return self._layers(hidden + self.embed_positions.weight[: hidden.shape[1]], attend, ops)

    def extend(self, features: Tensor, starts: Tensor, attend: Attend, ops: Ops = PLAIN) -> Tensor:
        """The positions from `starts` [rows] on of windows whose earlier ones are known.

        `features` [rows, n_mels, frames] begin `HALO_FRAMES` frames further left and end with
        the context. `attend` sees queries, keys and values of these positions alone, and has to
        know of the others. Returns [rows, positions, state].
        """
        hidden = self._convolve(features)[:, _HALO_POSITIONS:]
        offsets = torch.arange(hidden.shape[1], device=starts.device)
        return self._layers(hidden + self.embed_positions(starts[:, None] + offsets), attend, ops)

    def _convolve(self, features: Tensor) -> Tensor:
        hidden = F.gelu(self.conv1(features))
        return F.gelu(self.conv2(hidden)).transpose(1, 2)

    def _layers(self, hidden: Tensor, attend: Attend, ops: Ops) -> Tensor:
        hidden = hidden.contiguous()
        update: Tensor | None = None
        for number, layer in enumerate(self.layers):
            hidden, update = layer(number, hidden, update, attend, ops)
        return ops.add_norm(hidden, update, self.layer_norm)[1]
