"""Bytes of float8 against torch's own."""

from typing import Any

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl

from engine.kernels.float8 import float8_to_float32, float32_to_float8
from engine.kernels.plain_attention import quantise_plain
from engine.kernels.store_keys_values import store_keys_values
from tests.engine.kernels.test_plain_attention import (
    FLOAT8,
)


@triton.jit  # type: ignore[untyped-decorator]
def _read(stored: Any, out: Any, count: tl.constexpr, native: tl.constexpr) -> None:
    at = tl.arange(0, count)
    tl.store(out + at, float8_to_float32(tl.load(stored + at), native))


@triton.jit  # type: ignore[untyped-decorator]
def _write(numbers: Any, out: Any, count: tl.constexpr) -> None:
    at = tl.arange(0, count)
    tl.store(out + at, float32_to_float8(tl.load(numbers + at)))


@pytest.mark.parametrize("native", [True, False])
def test_every_byte_of_float8_is_read_as_torch_reads_it(native: bool) -> None:
    stored = torch.arange(256, dtype=torch.uint8)
    expected = stored.view(FLOAT8).float()
    numbers = torch.empty(256)
    _read[(1,)](stored, numbers, 256, native)
    finite = expected.isfinite()
    assert torch.equal(numbers[finite], expected[finite])


def test_float8_is_rounded_as_torch_rounds_it() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(FLOAT8).float()
    every = every[every.isfinite()].sort().values
    between = (every[1:] + every[:-1]) / 2  # ties
    above = between.nextafter(torch.tensor(torch.inf))
    below = between.nextafter(torch.tensor(-torch.inf))
    numbers = torch.cat((every, between, above, below, torch.tensor([1e-30, -0.0])))
    padded = torch.zeros(1024)
    padded[: len(numbers)] = numbers
    stored = torch.empty(1024, dtype=torch.uint8)
    _write[(1,)](padded, stored, 1024)
    assert torch.equal(stored, padded.to(FLOAT8).view(torch.uint8))


def test_many_sizes_of_vectors_are_quantised_as_the_twin_quantises_them() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 7, 5, 8, generator=generator)
    vectors *= 10.0 ** torch.arange(-3, 4)[:, None, None]
    vectors[0, 2, 3] = 0.0
    keys, values = torch.empty(2, 1, 7, 5, 8).to(FLOAT8)
    key_scales, value_scales = torch.empty(2, 1, 7, 5)
    store_keys_values(
        vectors,
        -vectors,
        keys,
        values,
        torch.tensor([0]),
        key_scales=key_scales,
        value_scales=value_scales,
    )
    for stored, scales, exact in (
        (keys, key_scales, vectors),
        (values, value_scales, -vectors),
    ):
        expected, expected_scales = quantise_plain(exact)
        assert torch.equal(stored.view(torch.uint8), expected.view(torch.uint8))
        assert torch.equal(scales, expected_scales)
