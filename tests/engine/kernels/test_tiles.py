import pytest
import torch

pytest.importorskip("triton")

import triton.language as tl

from engine.kernels.tiles import (
    CPU_MULTIPROCESSORS,
    dot_type_of,
    first_strides,
    keys_per_block,
    num_multiprocessors,
    queries_per_block,
)


def test_a_block_of_queries_holds_as_many_as_there_are_up_to_what_fits() -> None:
    assert [queries_per_block(width, exact=False) for width in (1, 16, 17, 33, 300)] == [
        16,
        16,
        32,
        64,
        64,
    ]
    assert queries_per_block(300, exact=True) == 16


def test_large_vectors_come_in_smaller_blocks() -> None:
    assert keys_per_block(torch.empty(1, 64, dtype=torch.float16)) == 64
    assert keys_per_block(torch.empty(1, 128, dtype=torch.float32)) == 32


def test_products_are_of_the_query_s_type_unless_the_cache_has_another() -> None:
    half, whole = torch.empty(1, dtype=torch.float16), torch.empty(1)
    assert dot_type_of(half, half) == (tl.float16, False)
    assert dot_type_of(half, half.to(torch.float8_e4m3fn)) == (tl.float16, False)
    assert dot_type_of(half, whole) == (tl.float32, True)


def test_what_is_absent_has_no_strides_that_matter() -> None:
    assert first_strides(None) == (0, 0, 0)
    assert first_strides(torch.empty(2, 3, 4, 5)) == (60, 20, 5)


def test_a_processor_counts_as_a_small_device() -> None:
    assert num_multiprocessors(torch.device("cpu")) == CPU_MULTIPROCESSORS
