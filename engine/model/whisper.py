"""The whole model: encoder, decoder, and how a checkpoint's tensors become theirs."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine.model.checkpoint import Checkpoint
from engine.model.decoder import TextDecoder
from engine.model.dims import ModelDims
from engine.model.encoder import AudioEncoder


class Whisper(nn.Module):
    """A Whisper checkpoint, ready for inference."""

    def __init__(self, dims: ModelDims, alignment_heads: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.dims = dims
        self.encoder = AudioEncoder(dims)
        self.decoder = TextDecoder(dims, alignment_heads)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device
    ) -> "Whisper":
        """Build the model of `checkpoint` without initialising what is overwritten anyway."""
        with torch.device("meta"):
            model = cls(checkpoint.dims, checkpoint.generation.alignment_heads)
        weights = fuse_projections(checkpoint.weights, checkpoint.dims)
        weights = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
        model.load_state_dict(weights, strict=True, assign=True)
        return model.eval().requires_grad_(False)


def fuse_projections(weights: Mapping[str, Tensor], dims: ModelDims) -> dict[str, Tensor]:
    """Join the projections that read the same input: one product instead of three or two.

    Whisper's keys have no bias; theirs becomes zero.
    """
    fused = {
        name: tensor
        for name, tensor in weights.items()
        if "self_attn." not in name and "encoder_attn." not in name
    }
    for side, num_layers in (("encoder", dims.n_audio_layer), ("decoder", dims.n_text_layer)):
        for index in range(num_layers):
            layer = f"{side}.layers.{index}."
            out = "out_proj" if side == "encoder" else "self_out_proj"
            fused |= _join(weights, f"{layer}self_attn.", "qkv", f"{layer}qkv_proj")
            fused |= _rename(weights, f"{layer}self_attn.out_proj", layer + out)
            if side == "decoder":
                source = f"{layer}encoder_attn."
                fused |= _join(weights, source, "kv", f"{layer}cross_kv_proj")
                fused |= _rename(weights, f"{source}q_proj", f"{layer}cross_q_proj")
                fused |= _rename(weights, f"{source}out_proj", f"{layer}cross_out_proj")
    return fused


def _rename(weights: Mapping[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    return {f"{target}.{part}": weights[f"{source}.{part}"] for part in ("weight", "bias")}


def _join(
    weights: Mapping[str, Tensor], source: str, letters: str, target: str
) -> dict[str, Tensor]:
    matrices = [weights[f"{source}{letter}_proj.weight"] for letter in letters]
    biases = [
        weights.get(f"{source}{letter}_proj.bias", matrix.new_zeros(matrix.shape[0]))
        for letter, matrix in zip(letters, matrices, strict=True)
    ]
    return {f"{target}.weight": torch.cat(matrices), f"{target}.bias": torch.cat(biases)}
