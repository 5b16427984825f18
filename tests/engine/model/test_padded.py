"""Rows of equal width against the packed layout, which attends row by row."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from engine.model.attention import KeysValues, Packed
from engine.model.backends import load_backend
from engine.model.padded import Padded

CPU = torch.device("cpu")
FLOAT8 = torch.float8_e4m3fn
SLOTS, HEADS, HEAD_DIM = 6, 3, 8
N_TEXT_CTX, PADDING, WINDOW = 14, 4, 20
WIDTH = 4

# Slot, first position, tokens of its own and encoded positions of each row.
ROWS = ((4, 0, 4, 20), (1, 7, 2, 3), (0, 3, 1, 11), (5, 11, 3, 1))


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Given:
    """The same tokens laid out in both ways, over caches of their own."""

    padded: Padded
    packed: Packed
    own: Tensor  # which of the padded tokens are a row's own

    @classmethod
    def build(cls, backend: str, kv_dtype: torch.dtype, *, most_positions: int = WINDOW) -> "Given":
        slots, starts, counts, contexts = torch.tensor(ROWS).T
        padded = Padded(
            load_backend(backend, torch.float32, kv_dtype),
            slots,
            starts + 1,
            contexts,
            width=WIDTH,
            most_tokens=N_TEXT_CTX,
            most_positions=most_positions,
        )
        packed = Packed.build(
            tuple(row[:3] for row in ROWS), tuple(int(context) for context in contexts), CPU
        )
        own = torch.arange(WIDTH) < counts[:, None]
        return cls(padded, packed, own.flatten())


def cache_of(positions: int, kv_dtype: torch.dtype) -> KeysValues:
    shape = SLOTS, positions, HEADS, HEAD_DIM
    keys, values = normal(*shape, seed=1).to(kv_dtype), normal(*shape, seed=2).to(kv_dtype)
    if kv_dtype is not FLOAT8:
        return KeysValues(keys, values)
    scales = normal(*shape[:3], seed=3).abs(), normal(*shape[:3], seed=4).abs()
    return KeysValues(keys, values, *scales)


def tokens(seed: int) -> Tensor:
    return normal(len(ROWS) * WIDTH, HEADS, HEAD_DIM, seed=seed)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


in_both_formats = pytest.mark.parametrize("kv_dtype", [torch.float32, FLOAT8], ids=str)
by_each = pytest.mark.parametrize("backend", ["eager", "sdpa"])


@by_each
@in_both_formats
def test_own_tokens_attend_to_themselves_as_in_packed_rows(
    backend: str, kv_dtype: torch.dtype
) -> None:
    given = Given.build(backend, kv_dtype)
    query, key, value = (tokens(seed) for seed in (5, 6, 7))
    room = N_TEXT_CTX + PADDING
    caches = cache_of(room, kv_dtype), cache_of(room, kv_dtype)
    attended = given.padded.attend_self(query, key, value, caches[0])
    own = given.own
    expected = given.packed.attend_self(query[own], key[own], value[own], caches[1])
    assert_close(attended[own], expected)
    assert attended.shape == query.shape
    for slot, start, count, _ in ROWS:
        until = start + count
        for one, other in zip(
            (caches[0].keys, caches[0].values), (caches[1].keys, caches[1].values), strict=True
        ):
            assert_close(one[slot, :until].float(), other[slot, :until].float())


@by_each
@in_both_formats
def test_a_slot_that_no_row_has_stays_as_it_is(backend: str, kv_dtype: torch.dtype) -> None:
    given = Given.build(backend, kv_dtype)
    cache, before = (cache_of(N_TEXT_CTX + PADDING, kv_dtype) for _ in range(2))
    given.padded.attend_self(tokens(5), tokens(6), tokens(7), cache)
    for slot in set(range(SLOTS)) - {row[0] for row in ROWS}:
        assert torch.equal(cache.keys[slot].float(), before.keys[slot].float())
        assert torch.equal(cache.values[slot].float(), before.values[slot].float())


@by_each
def test_what_padding_left_behind_is_overwritten_before_it_is_seen(backend: str) -> None:
    """A row's next tokens come out the same whatever was padded behind those before."""
    outcomes = []
    for padding in (0.0, 1e4):
        given = Given.build(backend, torch.float32).padded
        cache = cache_of(N_TEXT_CTX + PADDING, torch.float32)
        query, key, value = (tokens(seed) for seed in (5, 6, 7))
        for tensor in (query, key, value):
            tensor.view(-1, WIDTH, HEADS, HEAD_DIM)[1, 2:] = padding
        given.attend_self(query, key, value, cache)
        # The second row had two tokens of its own from position 7 on.
        later = replace(
            given,
            slots=torch.tensor([1]),
            seen=torch.tensor([9 + 1]),
            contexts=torch.tensor([3]),
            width=2,
        )
        query, key, value = (normal(2, HEADS, HEAD_DIM, seed=seed) for seed in (8, 9, 10))
        outcomes.append(later.attend_self(query, key, value, cache))
    assert_close(*outcomes)


@by_each
@in_both_formats
def test_tokens_attend_to_their_row_s_window_as_in_packed_rows(
    backend: str, kv_dtype: torch.dtype
) -> None:
    given = Given.build(backend, kv_dtype)
    query, cache = tokens(5), cache_of(WINDOW, kv_dtype)
    attended = given.padded.attend_cross(query, cache)
    assert_close(attended[given.own], given.packed.attend_cross(query[given.own], cache))


@by_each
def test_a_window_beyond_the_reach_ends_there(backend: str) -> None:
    """No row in service has such a window; the scratch slot may."""
    near = Given.build(backend, torch.float32, most_positions=11)
    query, cache = tokens(5), cache_of(WINDOW, torch.float32)
    attended = near.padded.attend_cross(query, cache)
    contexts = tuple(min(row[3], 11) for row in ROWS)
    cut = Packed.build(tuple(row[:3] for row in ROWS), contexts, CPU)
    assert_close(attended[near.own], cut.attend_cross(query[near.own], cache))


@by_each
@in_both_formats
@pytest.mark.parametrize("heads", [(0,), (2, 0)])
def test_where_heads_look_is_added_up_for_each_token_of_a_row(
    backend: str, kv_dtype: torch.dtype, heads: tuple[int, ...]
) -> None:
    given = Given.build(backend, kv_dtype)
    query, cache = tokens(5), cache_of(WINDOW, kv_dtype)
    (total,) = given.padded.look(query, cache, heads)
    assert total.shape == (len(ROWS), WIDTH, WINDOW)
    assert total.dtype is torch.float32
    looks = given.packed.look(query[given.own], cache, heads)
    for row, (expected, (_, _, count, context)) in enumerate(zip(looks, ROWS, strict=True)):
        assert_close(total[row, :count, :context], expected.sum(dim=0))
        assert not total[row, :, context:].any()
