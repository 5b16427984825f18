"""Whisper as it is trained: parameters under Hugging Face's names, and a head for CTC.

`engine.model` computes the same network for inference alone, with caches and joined
projections; here every projection stands by itself, as it is exported and as Muon wants it.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.model.checkpoint import expected_shapes
from engine.model.dims import ModelDims
from training.data.targets import BLANK
from training.errors import RecipeError

GUIDED_HEADS: Final = 2
_DROPOUT: Final = 0.1
_MATRIX_GAIN: Final = 0.7
_RESIDUAL_GAIN: Final = 0.35
_EMBEDDING_STD: Final = 0.03
_POSITION_STD: Final = 0.01
# At torch's own initialisation the convolutions give 6 % of what the positions do, and learning
# starts late; these make both about as large.
_CONV_GAIN: Final = 2.5
# The blank is what CTC says most of the time.
_BLANK_BIAS: Final = 3.0
_CTC_HEAD: Final = "ctc."
_EXPORTED: Final = "model."  # before every name, as `transformers` has them


@dataclass(frozen=True, slots=True)
class Outputs:
    """`logits` [rows, tokens, vocabulary], `ctc` [rows, positions, characters + 1].

    `guided` [layers, rows, tokens, positions] is where the guided heads look, their mean per
    guided layer, in float32.
    """

    logits: Tensor
    ctc: Tensor
    guided: Tensor


class Attention(nn.Module):
    """Attention of several heads, to its own input or to another."""

    def __init__(self, state: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(state, state)
        self.k_proj = nn.Linear(state, state, bias=False)
        self.v_proj = nn.Linear(state, state)
        self.out_proj = nn.Linear(state, state)

    def forward(
        self, hidden: Tensor, source: Tensor, *, is_causal: bool = False, watch: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """[rows, n, state] from `source` [rows, m, state]; watched: where the guided heads look."""
        query, key, value = (
            self._split(projection(x))
            for projection, x in (
                (self.q_proj, hidden),
                (self.k_proj, source),
                (self.v_proj, source),
            )
        )
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=is_causal)
        looks = None
        if watch:
            scores = query[:, :GUIDED_HEADS] @ key[:, :GUIDED_HEADS].transpose(2, 3)
            looks = (scores.float() / math.sqrt(query.shape[-1])).softmax(dim=-1).mean(dim=1)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), looks

    def _split(self, projected: Tensor) -> Tensor:
        """[rows, n, state] to [rows, heads, n, head_dim]."""
        rows, count, _ = projected.shape
        return projected.view(rows, count, self.num_heads, -1).transpose(1, 2)


class Layer(nn.Module):
    """One layer of the encoder, or with `cross` of the decoder."""

    def __init__(self, state: int, num_heads: int, mlp: int, *, cross: bool) -> None:
        super().__init__()
        self.self_attn = Attention(state, num_heads)
        self.self_attn_layer_norm = nn.LayerNorm(state)
        self.cross = cross
        if cross:
            self.encoder_attn = Attention(state, num_heads)
            self.encoder_attn_layer_norm = nn.LayerNorm(state)
        self.fc1 = nn.Linear(state, mlp)
        self.fc2 = nn.Linear(mlp, state)
        self.final_layer_norm = nn.LayerNorm(state)

    def forward(
        self, hidden: Tensor, encoded: Tensor | None = None, *, watch: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The hidden states behind this layer, and where its guided heads look if watched."""
        normed = self.self_attn_layer_norm(hidden)
        update, _ = self.self_attn(normed, normed, is_causal=self.cross)
        hidden = hidden + self._dropped(update)
        looks = None
        if encoded is not None:
            normed = self.encoder_attn_layer_norm(hidden)
            update, looks = self.encoder_attn(normed, encoded, watch=watch)
            hidden = hidden + self._dropped(update)
        update = self.fc2(F.gelu(self.fc1(self.final_layer_norm(hidden))))
        return hidden + self._dropped(update), looks

    def _dropped(self, update: Tensor) -> Tensor:
        return F.dropout(update, _DROPOUT, self.training)


class Encoder(nn.Module):
    """Features [rows, num_mels, frames] to states [rows, frames // 2, state]."""

    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        state = dims.n_audio_state
        self.conv1 = nn.Conv1d(dims.n_mels, state, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(state, state, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(dims.n_audio_ctx, state)
        self.layers = nn.ModuleList(
            Layer(state, dims.n_audio_head, dims.n_audio_mlp, cross=False)
            for _ in range(dims.n_audio_layer)
        )
        self.layer_norm = nn.LayerNorm(state)

    def forward(self, features: Tensor) -> Tensor:
        """For any context up to 30 s."""
        hidden = self.convolve(features)
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]
        for layer in self.layers:
            hidden, _ = layer(hidden)
        return cast("Tensor", self.layer_norm(hidden))

    def convolve(self, features: Tensor) -> Tensor:
        """What the positions are added to."""
        hidden = F.gelu(self.conv1(features))
        return F.gelu(self.conv2(hidden)).transpose(1, 2)


class Decoder(nn.Module):
    """Tokens and encoded audio to the next tokens."""

    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        state = dims.n_text_state
        self.embed_tokens = nn.Embedding(dims.n_vocab, state)
        self.embed_positions = nn.Embedding(dims.n_text_ctx, state)
        self.layers = nn.ModuleList(
            Layer(state, dims.n_text_head, dims.n_text_mlp, cross=True)
            for _ in range(dims.n_text_layer)
        )
        self.layer_norm = nn.LayerNorm(state)

    def forward(self, tokens: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and where the guided heads of the upper layers look."""
        hidden = self.embed_tokens(tokens) + self.embed_positions.weight[: tokens.shape[1]]
        watched = []
        for number, layer in enumerate(self.layers):
            is_upper = number > 0 or len(self.layers) == 1
            hidden, looks = layer(hidden, encoded, watch=is_upper)
            if looks is not None:
                watched.append(looks)
        logits = F.linear(self.layer_norm(hidden), self.embed_tokens.weight)
        return logits, torch.stack(watched)


class TrainableWhisper(nn.Module):
    """The whole network. Touched only by the training loop."""

    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        self.dims = dims
        self.encoder = Encoder(dims)
        self.decoder = Decoder(dims)
        self.ctc = nn.Linear(dims.n_audio_state, BLANK + 1)
        self._initialise()

    def forward(self, features: Tensor, tokens: Tensor) -> Outputs:
        """`features` [rows, num_mels, frames], `tokens` [rows, n]."""
        encoded = self.encoder(features)
        logits, guided = self.decoder(tokens, encoded)
        return Outputs(logits, self.ctc(encoded), guided)

    @torch.no_grad()
    def _initialise(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                gain = _RESIDUAL_GAIN if name.endswith(("out_proj", "fc2")) else 1.0
                std = gain * _MATRIX_GAIN / math.sqrt(module.in_features)
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv1d):
                inputs = module.in_channels * module.kernel_size[0]
                nn.init.normal_(module.weight, std=_CONV_GAIN / math.sqrt(inputs))
        nn.init.normal_(self.decoder.embed_tokens.weight, std=_EMBEDDING_STD)
        nn.init.normal_(self.decoder.embed_positions.weight, std=_POSITION_STD)
        self.ctc.bias[BLANK] = _BLANK_BIAS
        positions = self.encoder.embed_positions
        positions.weight.copy_(sinusoids(self.dims.n_audio_ctx, self.dims.n_audio_state))
        positions.weight.requires_grad_(False)


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's fixed positions [length, width] (openai/whisper model.py)."""
    step = math.log(10_000) / (width // 2 - 1)
    scales = torch.exp(-step * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * scales
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def load_exported(network: TrainableWhisper, directory: Path) -> None:
    """Take the weights of an exported checkpoint; the head for CTC stays as it is.

    Raises RecipeError where there are none, or of another model.
    """
    saved = read_exported(directory, network.dims)
    taken = {name.removeprefix(_EXPORTED): weights.float() for name, weights in saved.items()}
    network.load_state_dict(taken, strict=False)


def read_exported(directory: Path, dims: ModelDims) -> dict[str, Tensor]:
    """The weights of an exported checkpoint. Raises RecipeError, also where it has other sizes."""
    path = directory / "model.safetensors"
    try:
        saved = load_file(path)
    except (OSError, SafetensorError) as exc:
        raise RecipeError(f"{path}: expected an exported checkpoint: {exc}") from exc
    shapes = {name.removeprefix(_EXPORTED): tuple(w.shape) for name, w in saved.items()}
    if shapes != dict(expected_shapes(dims)):
        raise RecipeError(f"{path}: expected a checkpoint of {dims}, found another")
    return saved


def exported_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the head that only training needs, under the names of `transformers`."""
    return {f"{_EXPORTED}{k}": v for k, v in weights.items() if not k.startswith(_CTC_HEAD)}
