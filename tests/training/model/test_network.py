from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.model.checkpoint import expected_shapes
from tests.support.recipe import tiny_dims
from training.data.targets import BLANK
from training.errors import RecipeError
from training.model.network import (
    TrainableWhisper,
    exported_weights,
    load_exported,
    sinusoids,
)

DIMS = tiny_dims(60)


def test_what_is_exported_is_exactly_what_the_engine_expects() -> None:
    weights = exported_weights(TrainableWhisper(DIMS).state_dict())
    shapes = {name.removeprefix("model."): tuple(t.shape) for name, t in weights.items()}
    assert shapes == expected_shapes(DIMS)


def test_outputs_cover_every_token_and_position() -> None:
    network = TrainableWhisper(DIMS).eval()
    outputs = network(torch.randn(3, 80, 120), torch.randint(60, (3, 7)))
    assert outputs.logits.shape == (3, 7, 60)
    assert outputs.ctc.shape == (3, 60, BLANK + 1)
    assert outputs.guided.shape == (1, 3, 7, 60)
    assert torch.allclose(outputs.guided.sum(dim=-1), torch.ones(1, 3, 7), atol=1e-5)


def test_a_token_sees_what_is_before_it_and_nothing_behind() -> None:
    network = TrainableWhisper(DIMS).eval()
    features = torch.randn(1, 80, 100)
    tokens = torch.randint(60, (1, 6))
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % 60
    before, after = (network(features, t).logits[0] for t in (tokens, changed))
    assert torch.allclose(before[:4], after[:4], atol=1e-6)
    assert not torch.allclose(before[4:], after[4:], atol=1e-3)


def test_convolutions_begin_about_as_large_as_positions() -> None:
    torch.manual_seed(0)
    network = TrainableWhisper(DIMS)
    features = (torch.randn(4, 80, 400) * 0.4 - 0.1).clamp(-1, 1.5)
    convolved = network.encoder.convolve(features).std()
    positions = network.encoder.embed_positions.weight.std()
    assert 0.5 < convolved / positions < 2.5


def test_positions_are_whispers_and_never_trained() -> None:
    network = TrainableWhisper(DIMS)
    positions = network.encoder.embed_positions.weight
    assert not positions.requires_grad
    assert torch.equal(positions, sinusoids(1500, 32))
    assert positions[0].tolist() == [0.0] * 16 + [1.0] * 16


def test_a_run_can_begin_from_what_was_exported(tmp_path: Path) -> None:
    trained, begun = TrainableWhisper(DIMS), TrainableWhisper(DIMS)
    halves = {k: v.half().contiguous() for k, v in exported_weights(trained.state_dict()).items()}
    save_file(halves, tmp_path / "model.safetensors")
    head = begun.ctc.weight.detach().clone()
    load_exported(begun, tmp_path)
    assert torch.equal(begun.ctc.weight, head)
    for name, weights in exported_weights(begun.state_dict()).items():
        assert torch.equal(weights, halves[name].float())


def test_a_run_cannot_begin_from_another_model_or_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expected an exported checkpoint"):
        load_exported(TrainableWhisper(DIMS), tmp_path)
    save_file(exported_weights(TrainableWhisper(DIMS).state_dict()), tmp_path / "model.safetensors")
    other = TrainableWhisper(replace(DIMS, n_vocab=61))
    with pytest.raises(RecipeError, match="found another"):
        load_exported(other, tmp_path)
