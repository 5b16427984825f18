"""The encoder against `transformers`' on the same weights, at 30 s and at any shorter context."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.checkpoint import load_checkpoint
from engine.model.encoder import HALO_FRAMES, AudioEncoder, attend_within
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


# Extensions.

Kept = dict[int, tuple[Tensor, Tensor]]  # keys and values [rows, positions, heads, head_dim]


def encode_and_keep(encoder: AudioEncoder, features: Tensor) -> tuple[Tensor, Kept]:
    kept: Kept = {}

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        kept[layer] = key, value
        return attend_within(layer, query, key, value)

    with one_thread():
        encoded: Tensor = encoder(features, attend)
    return encoded, kept


def extend(
    encoder: AudioEncoder, features: Tensor, starts: list[int], kept: Kept, width: int
) -> Tensor:
    """`width` positions of each window from its place in `starts` on, against what was kept."""

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = []
        for row, start in enumerate(starts):
            keys, values = (
                torch.cat((known[row, :start], new[row]))[None]
                for known, new in zip(kept[layer], (key, value), strict=True)
            )
            rows.append(attend_within(layer, query[row : row + 1], keys, values))
        return torch.cat(rows)

    parts = [
        row[:, 2 * start - HALO_FRAMES : 2 * (start + width)]
        for row, start in zip(features, starts, strict=True)
    ]
    with one_thread():
        return encoder.extend(torch.stack(parts), torch.tensor(starts), attend)


def test_against_what_was_kept_of_the_same_window_an_extension_says_the_same(
    encoder: AudioEncoder,
) -> None:
    """From a place of each row's own, the nearest to the start that there is among them."""
    width, starts = 40, [2, 57, 80]
    features = FEATURES[:, :, : 2 * (80 + width)]
    for row, start in enumerate(starts):
        window = features[row : row + 1, :, : 2 * (start + width)]
        encoded, kept = encode_and_keep(encoder, window)
        again = extend(encoder, window, [start], kept, width)
        torch.testing.assert_close(again, encoded[:, start:], rtol=1e-4, atol=1e-4)


def test_rows_are_extended_together_as_they_are_alone(encoder: AudioEncoder) -> None:
    width, starts = 32, [2, 57, 40]
    features = FEATURES[:, :, : 2 * 100]
    kept = encode_and_keep(encoder, features)[1]
    together = extend(encoder, features, starts, kept, width)
    for row, start in enumerate(starts):
        own = {layer: (k[row : row + 1], v[row : row + 1]) for layer, (k, v) in kept.items()}
        alone = extend(encoder, features[row : row + 1], [start], own, width)[0]
        torch.testing.assert_close(alone, together[row], rtol=1e-5, atol=1e-5)


def test_what_was_kept_is_attended_to(encoder: AudioEncoder) -> None:
    features = FEATURES[:1, :, : 2 * 100]
    kept = encode_and_keep(encoder, features)[1]
    other = {layer: (keys, -values) for layer, (keys, values) in kept.items()}
    one, another = (extend(encoder, features, [60], it, 40) for it in (kept, other))
    assert float((one - another).abs().max()) > 0.1
