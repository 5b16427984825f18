"""Whisper's audio encoder (openai/whisper `model.py`), for any context up to 30 s.

Parameter names are the Hugging Face checkpoint's, except that the three input projections of
an attention are one: `qkv_proj`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.dims import ModelDims


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

    def forward(self, hidden: Tensor) -> Tensor:
        """`hidden` and result are [rows, positions, state]."""
        rows, positions, state = hidden.shape
        qkv: Tensor = self.qkv_proj(self.self_attn_layer_norm(hidden))
        query, key, value = (
            qkv.view(rows, positions, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        hidden = hidden + self.out_proj(attended.transpose(1, 2).reshape(rows, positions, state))
        feed: Tensor = self.fc1(self.final_layer_norm(hidden))
        grown: Tensor = self.fc2(F.gelu(feed))
        return hidden + grown


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

    def forward(self, features: Tensor) -> Tensor:
        """`features` [rows, n_mels, 2 × positions] to [rows, positions, state]."""
        hidden = F.gelu(self.conv1(features))
        hidden = F.gelu(self.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]
        for layer in self.layers:
            hidden = layer(hidden)
        normed: Tensor = self.layer_norm(hidden)
        return normed
