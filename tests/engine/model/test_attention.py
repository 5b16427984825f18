"""Packed rows of slots against attention as it is written in textbooks, one row at a time."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from engine.model.attention import (
    LayerCache,
    Packed,
    cross_attention,
    cross_probabilities,
    self_attention,
)

CPU = torch.device("cpu")
SLOTS, HEADS, HEAD_DIM, N_TEXT_CTX, N_AUDIO_CTX = 6, 3, 4, 12, 20

# Slot, first position, tokens: a prefill, a draft behind seven tokens, single tokens, the whole.
SPANS = ((4, 0, 5), (1, 7, 4), (0, 0, 1), (2, 11, 1), (5, 0, 12))
CONTEXTS = (20, 7, 1, 13, 20)


@dataclass(frozen=True)
class Batch:
    cache: LayerCache
    packed: Packed
    query: Tensor

    def rows(self) -> list[Tensor]:
        """The queries of each row."""
        return list(torch.split(self.query, [count for _, _, count in self.packed.spans]))


def batch(
    spans: tuple[tuple[int, int, int], ...] = SPANS, contexts: tuple[int, ...] = CONTEXTS
) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    cache = LayerCache(
        normal(SLOTS, N_TEXT_CTX, HEADS, HEAD_DIM),
        normal(SLOTS, N_TEXT_CTX, HEADS, HEAD_DIM),
        normal(SLOTS, HEADS, N_AUDIO_CTX, HEAD_DIM),
        normal(SLOTS, HEADS, N_AUDIO_CTX, HEAD_DIM),
    )
    packed = Packed.build(spans, contexts, CPU)
    return Batch(cache, packed, normal(sum(count for _, _, count in spans), HEADS, HEAD_DIM))


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One query [heads, head_dim] over keys and values [keys, heads, head_dim]."""
    scores = torch.einsum("hd,khd->hk", query, keys) * HEAD_DIM**-0.5
    return torch.einsum("hk,khd->hd", scores.softmax(dim=-1), values)


def test_packed_tokens_know_their_slot_and_position() -> None:
    packed = Packed.build(((3, 0, 2), (1, 7, 3)), (5, 6), CPU)
    assert packed.slots.tolist() == [3, 3, 1, 1, 1]
    assert packed.positions.tolist() == [0, 1, 7, 8, 9]


def test_self_attention_sees_each_token_s_own_slot_up_to_itself() -> None:
    given = batch()
    expected = [
        attend(query, given.cache.self_keys[slot, :seen], given.cache.self_values[slot, :seen])
        for (slot, start, count), row in zip(SPANS, given.rows(), strict=True)
        for query, seen in zip(row, range(start + 1, start + count + 1), strict=True)
    ]
    attended = self_attention(given.query, given.cache, given.packed)
    torch.testing.assert_close(attended, torch.stack(expected))


def test_cross_attention_sees_the_encoded_part_of_its_own_slot() -> None:
    given = batch()
    expected = [
        attend(
            query,
            given.cache.cross_keys[slot, :, :context].transpose(0, 1),
            given.cache.cross_values[slot, :, :context].transpose(0, 1),
        )
        for (slot, _, _), context, row in zip(SPANS, CONTEXTS, given.rows(), strict=True)
        for query in row
    ]
    attended = cross_attention(given.query, given.cache, given.packed)
    torch.testing.assert_close(attended, torch.stack(expected))


def test_probabilities_are_those_that_cross_attention_weighs_with() -> None:
    given, heads = batch(), [2, 0]
    weights = cross_probabilities(given.query, given.cache, given.packed, heads)
    attended = cross_attention(given.query, given.cache, given.packed)[:, heads]
    rows = torch.split(attended, [count for _, _, count in SPANS])
    for (slot, _, count), context, looked, row in zip(SPANS, CONTEXTS, weights, rows, strict=True):
        assert looked.shape == (len(heads), count, context)
        values = given.cache.cross_values[slot, heads, :context]
        torch.testing.assert_close((looked @ values).transpose(0, 1), row)


@pytest.mark.parametrize("number", range(len(SPANS)))
def test_a_row_s_result_does_not_depend_on_its_neighbours(number: int) -> None:
    given = batch()
    packed = Packed.build((SPANS[number],), (CONTEXTS[number],), CPU)
    query = given.rows()[number]
    first = sum(count for _, _, count in SPANS[:number])
    row = slice(first, first + len(query))
    for attention in (self_attention, cross_attention):
        together = attention(given.query, given.cache, given.packed)[row]
        alone = attention(query, given.cache, packed)
        torch.testing.assert_close(alone, together, rtol=0, atol=0)


def test_what_lies_behind_a_row_s_tokens_and_context_is_not_seen() -> None:
    given = batch()
    before = [
        attention(given.query, given.cache, given.packed)
        for attention in (self_attention, cross_attention)
    ]
    for (slot, start, count), context in zip(SPANS, CONTEXTS, strict=True):
        given.cache.self_keys[slot, start + count :] = torch.nan
        given.cache.self_values[slot, start + count :] = torch.nan
        given.cache.cross_keys[slot, :, context:] = torch.nan
        given.cache.cross_values[slot, :, context:] = torch.nan
    given.cache.self_keys[3] = given.cache.cross_keys[3] = torch.nan  # a slot that has no row
    after = [
        attention(given.query, given.cache, given.packed)
        for attention in (self_attention, cross_attention)
    ]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
