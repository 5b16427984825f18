"""Windows written to their slots, against the cache they should make."""

import pytest
import torch

pytest.importorskip("triton")

from engine.kernels.store_keys_values import store_keys_values
from tests.engine.kernels.test_plain_attention import (
    FLOAT8,
    assert_same_caches,
    make_batch,
    with_new_stored,
)


@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.float16, FLOAT8])
def test_a_whole_window_is_stored_from_its_first_position_on(cache_dtype: torch.dtype) -> None:
    given = make_batch((1, 1), width=70, positions=75, cache_dtype=cache_dtype)
    expected = with_new_stored(given)
    store_keys_values(
        given.new_keys, given.new_values, given.keys, given.values, given.slots, **given.scales()
    )
    assert_same_caches(given, expected)


@pytest.mark.parametrize("cache_dtype", [torch.float32, FLOAT8])
def test_positions_are_stored_from_where_each_row_starts(cache_dtype: torch.dtype) -> None:
    # Within, over the end, beyond the end, from before the beginning, wholly before it.
    given = make_batch((4, 9, 20, -2, -20), width=7, cache_dtype=cache_dtype)
    expected = with_new_stored(given)
    store_keys_values(
        given.new_keys,
        given.new_values,
        given.keys,
        given.values,
        given.slots,
        starts=given.seen - 1,
        **given.scales(),
    )
    assert_same_caches(given, expected)
