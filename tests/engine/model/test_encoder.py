"""The encoder against `transformers`' on the same weights, at 30 s and at any shorter context."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.checkpoint import load_checkpoint
from engine.model.encoder import AudioEncoder
from engine.model.whisper import Whisper
from tests.support.checkpoints import (
    SHAPES,
    make_checkpoint,
    make_features,
    one_thread,
    reference_model,
)

SHAPE = "tiny.en"
FEATURES = make_features(3, SHAPES[SHAPE].num_mels, seed=1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("encoder"), SHAPE)


@pytest.fixture(scope="module")
def encoder(directory: Path) -> AudioEncoder:
    checkpoint = load_checkpoint(directory)
    model = Whisper.from_checkpoint(checkpoint, dtype=torch.float32, device=torch.device("cpu"))
    return model.encoder


def encode(encoder: AudioEncoder, features: Tensor) -> Tensor:
    with one_thread():
        encoded: Tensor = encoder(features)
    return encoded


@torch.inference_mode()
def reference(directory: Path, features: Tensor) -> Tensor:
    """`transformers`' own layers, which take any length; its encoder insists on 30 s."""
    theirs: Any = reference_model(directory).model.encoder
    with one_thread():
        hidden = F.gelu(theirs.conv2(F.gelu(theirs.conv1(features)))).transpose(1, 2)
        hidden = hidden + theirs.embed_positions.weight[: hidden.shape[1]]
        for layer in theirs.layers:
            output = layer(hidden, attention_mask=None)
            hidden = output[0] if isinstance(output, tuple) else output
        normed: Tensor = theirs.layer_norm(hidden)
    return normed


def test_states_are_those_of_transformers_encoder(encoder: AudioEncoder, directory: Path) -> None:
    with one_thread(), torch.inference_mode():
        theirs = reference_model(directory).model.encoder(FEATURES).last_hidden_state
    ours = encode(encoder, FEATURES)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert float(theirs.std()) > 0.1, "states that say nothing would agree with anything"


@pytest.mark.parametrize("positions", [1, 64, 223])
def test_a_trimmed_context_is_encoded_as_if_30_s_had_never_been(
    encoder: AudioEncoder, directory: Path, positions: int
) -> None:
    trimmed = FEATURES[:, :, : 2 * positions]
    ours = encode(encoder, trimmed)
    assert ours.shape == (len(FEATURES), positions, encoder.layer_norm.weight.shape[0])
    torch.testing.assert_close(ours, reference(directory, trimmed), rtol=1e-4, atol=1e-4)


def test_a_row_s_states_do_not_depend_on_its_neighbours(encoder: AudioEncoder) -> None:
    features = FEATURES[:, :, :256]
    together = encode(encoder, features)
    for row in range(len(features)):
        alone = encode(encoder, features[row : row + 1])[0]
        torch.testing.assert_close(alone, together[row], rtol=1e-5, atol=1e-5)
