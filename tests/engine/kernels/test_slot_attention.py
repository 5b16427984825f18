"""The kernels, interpreted, against textbook attention in float64 and their plain twins."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")


from engine.kernels.plain_attention import slot_attention_plain
from engine.kernels.slot_attention import (
    MIN_KEYS_TO_SPLIT,
    num_splits,
    slot_attention,
)
from engine.kernels.tiles import KEYS_PER_BLOCK
from tests.engine.kernels.test_plain_attention import (
    FLOAT8,
    Batch,
    assert_close,
    assert_same_caches,
    expected_attention,
    make_batch,
    with_new_stored,
)

DTYPES = [
    (torch.float32, torch.float32),
    (torch.float16, torch.float16),
    (torch.float16, torch.float32),
    (torch.float32, FLOAT8),
    (torch.float16, FLOAT8),
]
# The two that differ most.
FAR_DTYPES = [(torch.float32, torch.float32), (torch.float16, FLOAT8)]


def attend(
    given: Batch,
    *,
    causal: bool,
    most: int,
    new: bool = False,
    attention: Callable[..., Tensor] = slot_attention,
) -> Tensor:
    return attention(
        given.query,
        given.keys,
        given.values,
        given.slots,
        given.seen,
        causal=causal,
        most=most,
        **given.scales(),
        **(given.new() if new else {}),
    )


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize(("dtype", "cache_dtype"), DTYPES)
def test_each_query_sees_the_keys_of_its_row_s_slot(
    causal: bool, width: int, dtype: torch.dtype, cache_dtype: torch.dtype
) -> None:
    given = make_batch((3, 0, 12, 40, 7), width=width, dtype=dtype, cache_dtype=cache_dtype)
    attended = attend(given, causal=causal, most=9)
    assert attended.dtype == dtype
    assert attended.is_contiguous()
    assert_close(attended, expected_attention(given, causal=causal, most=9))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("width", [1, 3])
def test_keys_split_among_programs_give_the_same(causal: bool, width: int) -> None:
    # Two of the rows see nothing of the last split, one of them nothing at all.
    given = make_batch((3, 0, 530, 601), width=width, positions=600, heads=2)
    assert num_splits(8, 600, 8) > 1
    assert_close(
        attend(given, causal=causal, most=600), expected_attention(given, causal=causal, most=600)
    )


@pytest.mark.parametrize("width", [1, 37])
@pytest.mark.parametrize(("dtype", "cache_dtype"), FAR_DTYPES)
def test_more_keys_and_queries_than_a_block_holds_are_seen(
    width: int, dtype: torch.dtype, cache_dtype: torch.dtype
) -> None:
    given = make_batch(
        (70, 1), width=width, positions=140, heads=2, dtype=dtype, cache_dtype=cache_dtype
    )
    assert KEYS_PER_BLOCK < 70
    assert_close(
        attend(given, causal=True, most=140), expected_attention(given, causal=True, most=140)
    )


@pytest.mark.parametrize("head_dim", [6, 16, 128])
@pytest.mark.parametrize("width", [1, 2])
def test_heads_may_have_any_size(head_dim: int, width: int) -> None:
    given = make_batch((3, 11), width=width, heads=2, head_dim=head_dim)
    attended = attend(given, causal=True, most=12, new=True)
    expected = expected_attention(with_new_stored(given), causal=True, most=12)
    assert_close(attended, expected)


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize(("dtype", "cache_dtype"), DTYPES)
def test_new_keys_are_stored_where_they_belong_and_seen(
    width: int, dtype: torch.dtype, cache_dtype: torch.dtype
) -> None:
    # The third row runs over the end of the cache, the fourth is beyond it, the last begins
    # before it.
    given = make_batch((1, 4, 10, 15, 0), width=width, dtype=dtype, cache_dtype=cache_dtype)
    expected = with_new_stored(given)
    attended = attend(given, causal=True, most=12, new=True)
    assert_same_caches(given, expected)
    assert_close(attended, expected_attention(expected, causal=True, most=12))


@pytest.mark.parametrize("width", [1, 19])
@pytest.mark.parametrize("cache_dtype", [torch.float32, FLOAT8])
def test_new_keys_are_stored_once_where_keys_and_queries_are_split(
    width: int, cache_dtype: torch.dtype
) -> None:
    given = make_batch((1, 540), width=width, positions=600, heads=2, cache_dtype=cache_dtype)
    assert num_splits(8, 600, 8) > 1
    expected = with_new_stored(given)
    attended = attend(given, causal=True, most=600, new=True)
    assert_same_caches(given, expected)
    assert_close(attended, expected_attention(expected, causal=True, most=600))


@pytest.mark.parametrize("width", [1, 3])
def test_new_keys_beyond_what_may_be_seen_are_stored_all_the_same(width: int) -> None:
    given = make_batch((5, 2), width=width)
    expected = with_new_stored(given)
    attended = attend(given, causal=True, most=4, new=True)
    assert_same_caches(given, expected)
    assert_close(attended, expected_attention(expected, causal=True, most=4))


@pytest.mark.parametrize("cache_dtype", [torch.float32, FLOAT8])
def test_it_makes_no_difference_in_how_many_passes_tokens_are_fed(
    cache_dtype: torch.dtype,
) -> None:
    given = make_batch((1, 4, 6), width=6, cache_dtype=cache_dtype)
    together, apart = given.copy(), given.copy()
    whole = attend(together, causal=True, most=12, new=True)
    parts = [
        attend(apart.tokens(part), causal=True, most=12, new=True)
        for part in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    assert_same_caches(apart, together)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("cache_dtype", [torch.float32, FLOAT8])
def test_a_row_s_result_does_not_depend_on_its_neighbours(
    width: int, cache_dtype: torch.dtype
) -> None:
    given = make_batch((3, 12, 7), width=width, cache_dtype=cache_dtype)
    alone = [
        attend(given.copy().rows(slice(row, row + 1)), causal=True, most=12, new=True)
        for row in range(3)
    ]
    together = attend(given, causal=True, most=12, new=True)
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=0)


@pytest.mark.parametrize("width", [1, 5])
def test_padding_rows_may_share_a_slot(width: int) -> None:
    given = make_batch((3, 7, 1, 1, 1), width=width)
    given = replace(given, slots=given.slots[[0, 1, 2, 2, 2]].int(), seen=given.seen.int())
    expected = with_new_stored(given)
    attended = attend(given, causal=True, most=12, new=True)
    assert_close(attended[:2], expected_attention(expected, causal=True, most=12)[:2])
    padding = given.slots[2]
    given.keys[padding], given.values[padding] = expected.keys[padding], expected.values[padding]
    assert_same_caches(given, expected)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("new", [False, True])
def test_what_no_query_sees_may_be_anything(width: int, new: bool) -> None:
    given = make_batch((3, 7), width=width)
    other = given.copy()
    for slot, seen in zip(given.slots.tolist(), given.seen.tolist(), strict=True):
        unseen = seen - 1 if new else seen + width - 1
        other.keys[slot, unseen:] = torch.nan
        other.values[slot, unseen:] = torch.nan
    torch.testing.assert_close(
        attend(other, causal=True, most=12, new=new),
        attend(given, causal=True, most=12, new=new),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.float16, FLOAT8])
def test_kernel_and_plain_twin_do_the_same(width: int, cache_dtype: torch.dtype) -> None:
    given = make_batch((1, 4, 10, 15, 0), width=width, cache_dtype=cache_dtype)
    twin = given.copy()
    torch.testing.assert_close(
        attend(given, causal=True, most=11, new=True),
        attend(twin, causal=True, most=11, new=True, attention=slot_attention_plain),
        rtol=3e-6,
        atol=3e-6,
    )
    assert_same_caches(given, twin)


def test_vectors_must_be_contiguous() -> None:
    given = make_batch((3, 7), width=2)
    with pytest.raises(ValueError, match="contiguous"):
        attend(replace(given, query=given.query.mT), causal=True, most=12)
    with pytest.raises(ValueError, match="contiguous"):
        attend(replace(given, new_keys=given.new_keys.mT), causal=True, most=12, new=True)


def test_nothing_to_attend_to_gives_nothing() -> None:
    given = make_batch((3, 7), width=2).rows(slice(0, 0))
    assert attend(given, causal=True, most=12).shape == (0, 2, 3, 4)


def test_a_device_that_is_full_reads_keys_whole() -> None:
    assert num_splits(programs=264, most=1500, multiprocessors=132) == 1


@pytest.mark.parametrize("programs", [1, 6, 20, 40, 120, 200, 263])
@pytest.mark.parametrize("most", [MIN_KEYS_TO_SPLIT, 1500])
def test_splits_fill_a_device_and_none_is_empty(programs: int, most: int) -> None:
    splits = num_splits(programs, most, 132)
    assert programs * splits <= 4 * 132
    blocks = -(-most // KEYS_PER_BLOCK)
    per_split = -(-blocks // splits)
    assert (splits - 1) * per_split < blocks
    assert programs * splits >= 2 * 132 or per_split == 1


@pytest.mark.parametrize("most", [0, 1, MIN_KEYS_TO_SPLIT - 1])
def test_few_keys_are_not_split(most: int) -> None:
    assert num_splits(programs=1, most=most, multiprocessors=132) == 1
