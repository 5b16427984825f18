"""How a checkpoint's tensors become the model's: fused where they read the same input."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from engine.model.checkpoint import Checkpoint, load_checkpoint
from engine.model.whisper import Whisper, fuse_projections
from tests.support.checkpoints import make_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    directory: Path = make_checkpoint(tmp_path_factory.mktemp("whisper"), "tiny.en")
    return load_checkpoint(directory)


@pytest.mark.parametrize(
    ("source", "letters", "fused"),
    [
        ("encoder.layers.0.self_attn.", "qkv", "encoder.layers.0.qkv_proj"),
        ("decoder.layers.3.self_attn.", "qkv", "decoder.layers.3.qkv_proj"),
        ("decoder.layers.1.encoder_attn.", "kv", "decoder.layers.1.cross_kv_proj"),
    ],
)
def test_one_fused_product_equals_the_separate_ones(
    checkpoint: Checkpoint, source: str, letters: str, fused: str
) -> None:
    weights = fuse_projections(checkpoint.weights, checkpoint.dims)
    hidden = torch.randn(
        5, checkpoint.dims.n_audio_state, generator=torch.Generator().manual_seed(0)
    )
    separate = [
        F.linear(
            hidden,
            checkpoint.weights[f"{source}{letter}_proj.weight"],
            checkpoint.weights.get(f"{source}{letter}_proj.bias"),
        )
        for letter in letters
    ]
    together = F.linear(hidden, weights[f"{fused}.weight"], weights[f"{fused}.bias"])
    torch.testing.assert_close(together, torch.cat(separate, dim=-1))


def test_keys_have_no_bias(checkpoint: Checkpoint) -> None:
    state = checkpoint.dims.n_text_state
    weights = fuse_projections(checkpoint.weights, checkpoint.dims)
    assert "decoder.layers.0.self_attn.k_proj.bias" not in checkpoint.weights
    assert not weights["decoder.layers.0.qkv_proj.bias"][state : 2 * state].any()
    assert not weights["decoder.layers.0.cross_kv_proj.bias"][:state].any()


def test_projections_that_stay_alone_are_only_renamed(checkpoint: Checkpoint) -> None:
    weights = fuse_projections(checkpoint.weights, checkpoint.dims)
    for source, target in (
        ("encoder.layers.1.self_attn.out_proj", "encoder.layers.1.out_proj"),
        ("decoder.layers.1.self_attn.out_proj", "decoder.layers.1.self_out_proj"),
        ("decoder.layers.1.encoder_attn.q_proj", "decoder.layers.1.cross_q_proj"),
        ("decoder.layers.1.encoder_attn.out_proj", "decoder.layers.1.cross_out_proj"),
        ("decoder.layers.1.fc1", "decoder.layers.1.fc1"),
    ):
        for part in ("weight", "bias"):
            assert weights[f"{target}.{part}"] is checkpoint.weights[f"{source}.{part}"]


def test_every_number_of_the_checkpoint_is_in_the_model_once(checkpoint: Checkpoint) -> None:
    model = Whisper.from_checkpoint(checkpoint, dtype=torch.float32, device=CPU)
    stored = sum(tensor.numel() for tensor in checkpoint.weights.values())
    attentions = checkpoint.dims.n_audio_layer + 2 * checkpoint.dims.n_text_layer
    key_biases = attentions * checkpoint.dims.n_text_state
    assert sum(parameter.numel() for parameter in model.parameters()) == stored + key_biases


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_is_for_inference_in_the_format_asked_for(
    checkpoint: Checkpoint, dtype: torch.dtype
) -> None:
    model = Whisper.from_checkpoint(checkpoint, dtype=dtype, device=CPU)
    assert not model.training
    for name, parameter in model.named_parameters():
        assert parameter.dtype is dtype, name
        assert parameter.device == CPU, name  # none was left without memory
        assert not parameter.requires_grad, name


def test_a_checkpoint_without_one_of_its_tensors_is_not_made_into_a_model(
    checkpoint: Checkpoint,
) -> None:
    weights = dict(checkpoint.weights)
    del weights["decoder.layer_norm.weight"]
    incomplete = fuse_projections(weights, checkpoint.dims)
    model = Whisper(checkpoint.dims, checkpoint.generation.alignment_heads)
    with pytest.raises(RuntimeError, match=r"decoder\.layer_norm\.weight"):
        model.load_state_dict(incomplete, strict=True)
