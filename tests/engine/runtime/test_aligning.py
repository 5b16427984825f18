"""The aligning pass of whole hypotheses, and the boundaries that come of it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.audio.units import Positions
from engine.decoding.alignment import token_boundaries
from engine.model.attention import Packed, store_windows
from engine.model.checkpoint import load_checkpoint
from engine.model.whisper import Whisper
from engine.runtime.aligning import boundaries_of, by_row, look_at
from engine.runtime.caches import SlotCaches
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import AlignRow
from tests.support.checkpoints import make_checkpoint, make_features, one_thread

CPU = torch.device("cpu")
CONTEXT = 80
NUM_HEADS = 3  # alignment heads of the checkpoints that tests make
ROWS = (
    AlignRow(SlotHandle(2, 1), (401, 410, 5, 9, 33, 400), 2, Positions(70)),
    AlignRow(SlotHandle(0, 3), (401, 410, 7, 400), 2, Positions(25)),
    AlignRow(SlotHandle(1, 1), (401, 410, 40, 41, 42, 43, 44, 400), 2, Positions(CONTEXT)),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Whisper:
    path = make_checkpoint(tmp_path_factory.mktemp("aligning"), "tiny.en", encoder_layers=1)
    return Whisper.from_checkpoint(load_checkpoint(path), dtype=torch.float32, device=CPU)


@pytest.fixture
def caches(model: Whisper) -> SlotCaches:
    """A window of noise in each slot."""
    given = SlotCaches.allocate(model.dims, 3, dtype=torch.float32, device=CPU)
    features = make_features(3, model.dims.n_mels)[:, :, : 2 * CONTEXT]
    with one_thread():
        encoded: Tensor = model.encoder(features)
    slots = [0, 1, 2]
    model.decoder.write_cross(
        encoded, given.layers, lambda cache, keys, values: store_windows(cache, slots, keys, values)
    )
    return given


def look(model: Whisper, caches: SlotCaches, *rows: AlignRow) -> list[Tensor]:
    with one_thread():
        return look_at(model, caches, rows, [CONTEXT] * len(rows))


def test_each_row_s_heads_look_at_its_audible_part_alone(
    model: Whisper, caches: SlotCaches
) -> None:
    for row, weights in zip(ROWS, look(model, caches, *ROWS), strict=True):
        assert weights.shape == (NUM_HEADS, len(row.tokens), row.num_positions)
        assert weights.dtype is torch.float32
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:2]))
        assert float(weights.std()) > 1e-3, "an even look says nothing of time"


def test_a_row_looks_where_it_looks_alone(model: Whisper, caches: SlotCaches) -> None:
    together = look(model, caches, *ROWS)
    for row, weights in zip(ROWS, together, strict=True):
        (alone,) = look(model, caches, row)
        torch.testing.assert_close(alone, weights, rtol=1e-5, atol=1e-5)


def test_what_the_slot_was_fed_before_does_not_matter(model: Whisper, caches: SlotCaches) -> None:
    expected = look(model, caches, *ROWS)
    for layer in caches.layers:
        layer.self_attn.keys.fill_(3.0)
        layer.self_attn.values.fill_(-3.0)
    found = look(model, caches, *ROWS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_only_the_context_that_was_encoded_is_looked_at(model: Whisper, caches: SlotCaches) -> None:
    """What an earlier window left behind it in the slot is not the row's."""
    expected = look(model, caches, ROWS[0])
    for layer in caches.layers:
        layer.cross_attn.keys[2, CONTEXT:] = 50.0
    found = look(model, caches, ROWS[0])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_boundaries_are_those_of_each_row_s_looks() -> None:
    """Rows that look at one position after the other, the forced tokens at the first."""
    generator = np.random.default_rng(0)
    looks = []
    for given in ROWS:
        shape = NUM_HEADS, len(given.tokens), given.num_positions
        seen = generator.uniform(0.0, 0.1, shape).astype(np.float32)
        step = given.num_positions // len(given.tokens)
        for token in range(len(given.tokens)):
            seen[:, token, token * step : (token + 1) * step] += 1.0
        looks.append(torch.from_numpy(seen / seen.sum(axis=-1, keepdims=True)))
    result = boundaries_of(ROWS, looks)
    assert [row.slot for row in result.rows] == [row.slot for row in ROWS]
    for given, weights, row in zip(ROWS, looks, result.rows, strict=True):
        # Each text token and the end of text.
        assert len(row.boundaries) == len(given.tokens) - given.num_forced
        assert list(row.boundaries) == sorted(row.boundaries)
        assert row.boundaries == tuple(token_boundaries(weights.numpy(), given.num_forced).tolist())
        assert all(isinstance(boundary, int) for boundary in row.boundaries)


def test_a_hypothesis_is_aligned_from_its_tokens_to_its_boundaries(
    model: Whisper, caches: SlotCaches
) -> None:
    result = boundaries_of(ROWS, look(model, caches, *ROWS))
    for given, row in zip(ROWS, result.rows, strict=True):
        assert len(row.boundaries) == len(given.tokens) - given.num_forced
        assert all(0 <= boundary <= given.num_positions for boundary in row.boundaries)


def test_looks_of_layers_become_looks_of_rows_with_the_heads_of_all_layers() -> None:
    first = [torch.full((1, 2, 4), 1.0), torch.full((1, 3, 5), 2.0)]
    second = [torch.full((2, 2, 4), 3.0), torch.full((2, 3, 5), 4.0)]
    rows = by_row((first, second))
    assert [tuple(row.shape) for row in rows] == [(3, 2, 4), (3, 3, 5)]
    assert [row[:, 0, 0].tolist() for row in rows] == [[1.0, 3.0, 3.0], [2.0, 4.0, 4.0]]


def test_a_packed_pass_tells_layers_and_rows_in_their_order(
    model: Whisper, caches: SlotCaches
) -> None:
    """What `look_at` makes of it, for a row in the middle."""
    spans = tuple((row.slot.index, 0, len(row.tokens)) for row in ROWS)
    packed = Packed.build(spans, (CONTEXT,) * len(ROWS), CPU)
    tokens = torch.tensor([token for row in ROWS for token in row.tokens])
    with one_thread():
        hidden = model.decoder.embed(tokens, packed.positions)
        decoded = model.decoder(hidden, packed, caches.layers, align=True)
    weights = by_row(decoded.looks)[1][:, :, : ROWS[1].num_positions]
    expected = weights / weights.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(look(model, caches, *ROWS)[1], expected, rtol=1e-5, atol=1e-5)
