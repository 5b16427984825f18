"""Probabilities of some heads, added up, against attention as textbooks have it."""

import pytest
import torch

pytest.importorskip("triton")

from engine.kernels.alignment_weights import alignment_weights
from tests.engine.kernels.test_plain_attention import (
    FLOAT8,
    assert_close,
    expected_probabilities,
    make_batch,
)

DTYPES = [
    (torch.float32, torch.float32),
    (torch.float16, torch.float16),
    (torch.float16, torch.float32),
    (torch.float32, FLOAT8),
    (torch.float16, FLOAT8),
]


@pytest.mark.parametrize("width", [1, 19])
@pytest.mark.parametrize(("dtype", "cache_dtype"), DTYPES)
def test_probabilities_of_the_chosen_heads_are_added_up(
    width: int, dtype: torch.dtype, cache_dtype: torch.dtype
) -> None:
    given = make_batch((3, 0, 90), width=width, positions=80, dtype=dtype, cache_dtype=cache_dtype)
    before = torch.randn(3, width, 75, generator=torch.Generator().manual_seed(1))
    total = before.clone()
    alignment_weights(
        given.query,
        given.keys,
        given.slots,
        given.seen,
        torch.tensor([2, 0], dtype=torch.int32),
        total,
        key_scales=given.key_scales,
    )
    assert_close(total, before.double() + expected_probabilities(given, [2, 0], 75))
    assert torch.equal(total[0, :, 3:], before[0, :, 3:])


def test_no_heads_add_nothing() -> None:
    given, total = make_batch((3,), width=1), torch.ones(1, 1, 12)
    no_heads = torch.zeros(0, dtype=torch.int32)
    alignment_weights(given.query, given.keys, given.slots, given.seen, no_heads, total)
    assert torch.equal(total, torch.ones(1, 1, 12))
