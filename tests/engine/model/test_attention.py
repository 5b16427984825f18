"""Packed rows of slots against attention as it is written in textbooks, one row at a time."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from engine.kernels.plain_attention import quantise_plain
from engine.model.attention import KeysValues, LayerCache, Packed, store_windows

CPU = torch.device("cpu")
FLOAT8 = torch.float8_e4m3fn
SLOTS, HEADS, HEAD_DIM, N_TEXT_CTX, N_AUDIO_CTX = 6, 3, 4, 12, 20

# Slot, first position, tokens: a prefill, a draft behind seven tokens, single tokens, the whole.
SPANS = ((4, 0, 5), (1, 7, 4), (0, 0, 1), (2, 11, 1), (5, 0, 12))
CONTEXTS = (20, 7, 1, 13, 20)


@dataclass(frozen=True)
class Batch:
    cache: LayerCache
    packed: Packed
    query: Tensor
    keys: Tensor  # of the tokens themselves, as they are in the cache
    values: Tensor

    def attend_self(self) -> Tensor:
        return self.packed.attend_self(self.query, self.keys, self.values, self.cache.self_attn)

    def attend_cross(self) -> Tensor:
        return self.packed.attend_cross(self.query, self.cache.cross_attn)

    def rows(self) -> list[Tensor]:
        """The queries of each row."""
        return list(torch.split(self.query, [count for _, _, count in self.packed.spans]))


def batch(
    spans: tuple[tuple[int, int, int], ...] = SPANS, contexts: tuple[int, ...] = CONTEXTS
) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def cross() -> Tensor:
        return normal(SLOTS, HEADS, N_AUDIO_CTX, HEAD_DIM).transpose(1, 2)

    own = KeysValues(*(normal(SLOTS, N_TEXT_CTX, HEADS, HEAD_DIM) for _ in range(2)))
    packed = Packed.build(spans, contexts, CPU)
    query = normal(sum(count for _, _, count in spans), HEADS, HEAD_DIM)
    where = (packed.slots, packed.positions)
    cache = LayerCache(own, KeysValues(cross(), cross()))
    return Batch(cache, packed, query, own.keys[where].clone(), own.values[where].clone())


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
        attend(
            query,
            given.cache.self_attn.keys[slot, :seen],
            given.cache.self_attn.values[slot, :seen],
        )
        for (slot, start, count), row in zip(SPANS, given.rows(), strict=True)
        for query, seen in zip(row, range(start + 1, start + count + 1), strict=True)
    ]
    attended = given.attend_self()
    torch.testing.assert_close(attended, torch.stack(expected))


def test_cross_attention_sees_the_encoded_part_of_its_own_slot() -> None:
    given = batch()
    expected = [
        attend(
            query,
            given.cache.cross_attn.keys[slot, :context],
            given.cache.cross_attn.values[slot, :context],
        )
        for (slot, _, _), context, row in zip(SPANS, CONTEXTS, given.rows(), strict=True)
        for query in row
    ]
    attended = given.attend_cross()
    torch.testing.assert_close(attended, torch.stack(expected))


def test_probabilities_are_those_that_cross_attention_weighs_with() -> None:
    given, heads = batch(), [2, 0]
    weights = given.packed.look(given.query, given.cache.cross_attn, heads)
    attended = given.attend_cross()[:, heads]
    rows = torch.split(attended, [count for _, _, count in SPANS])
    for (slot, _, count), context, looked, row in zip(SPANS, CONTEXTS, weights, rows, strict=True):
        assert looked.shape == (len(heads), count, context)
        values = given.cache.cross_attn.values[slot, :context, heads].transpose(0, 1)
        torch.testing.assert_close((looked @ values).transpose(0, 1), row)


@pytest.mark.parametrize("number", range(len(SPANS)))
def test_a_row_s_result_does_not_depend_on_its_neighbours(number: int) -> None:
    given = batch()
    first = sum(count for _, _, count in SPANS[:number])
    row = slice(first, first + SPANS[number][2])
    alone = replace(
        given,
        packed=Packed.build((SPANS[number],), (CONTEXTS[number],), CPU),
        query=given.query[row],
        keys=given.keys[row],
        values=given.values[row],
    )
    torch.testing.assert_close(alone.attend_self(), given.attend_self()[row], rtol=0, atol=0)
    torch.testing.assert_close(alone.attend_cross(), given.attend_cross()[row], rtol=0, atol=0)


def test_what_lies_behind_a_row_s_tokens_and_context_is_not_seen() -> None:
    given = batch()
    before = [given.attend_self(), given.attend_cross()]
    for (slot, start, count), context in zip(SPANS, CONTEXTS, strict=True):
        given.cache.self_attn.keys[slot, start + count :] = torch.nan
        given.cache.self_attn.values[slot, start + count :] = torch.nan
        given.cache.cross_attn.keys[slot, context:] = torch.nan
        given.cache.cross_attn.values[slot, context:] = torch.nan
    given.cache.self_attn.keys[3] = given.cache.cross_attn.keys[3] = (
        torch.nan
    )  # a slot that has no row
    after = [given.attend_self(), given.attend_cross()]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_tokens_are_kept_in_their_slots_before_they_are_attended_to() -> None:
    given = batch()
    expected = given.attend_self()
    for slot, start, count in SPANS:
        given.cache.self_attn.keys[slot, start : start + count] = 7.0
        given.cache.self_attn.values[slot, start : start + count] = -7.0
    torch.testing.assert_close(given.attend_self(), expected, rtol=0, atol=0)


def test_float8_keeps_what_is_meant_to_a_sixteenth() -> None:
    """Three bits of mantissa: half a step is a sixteenth of the value at most."""
    generator = torch.Generator().manual_seed(3)
    keys, values = torch.randn(2, 2, 9, HEADS, HEAD_DIM, generator=generator) * 100
    cache = KeysValues(
        *(torch.zeros(4, N_AUDIO_CTX, HEADS, HEAD_DIM).to(FLOAT8) for _ in range(2)),
        *(torch.zeros(4, N_AUDIO_CTX, HEADS) for _ in range(2)),
    )
    store_windows(cache, [3, 1], keys, values)
    assert cache.key_scales is not None
    kept = cache.keys.float() * cache.key_scales[..., None]
    largest = keys.abs().amax(dim=-1, keepdim=True)
    for row, slot in enumerate((3, 1)):
        wrong = (kept[slot, :9] - keys[row]).abs()
        assert (wrong <= keys[row].abs() / 16 + largest[row] / 448 / 8).all()
    assert not cache.keys[0].float().any()


def test_attention_over_float8_is_attention_over_what_it_stands_for() -> None:
    given = batch()
    meant = given.cache.cross_attn
    (keys, key_scales), (values, value_scales) = map(quantise_plain, (meant.keys, meant.values))
    rough = KeysValues(keys, values, key_scales, value_scales)
    exact = KeysValues(
        keys.float() * key_scales[..., None], values.float() * value_scales[..., None]
    )
    attended = given.packed.attend_cross(given.query, rough)
    torch.testing.assert_close(attended, given.packed.attend_cross(given.query, exact))
