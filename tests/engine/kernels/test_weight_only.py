"""Products with small weights against the same weights written out in float64."""

from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor

from engine.kernels.weight_only import MAX_ROWS, dequantize_weight, weight_only_linear
from engine.model.quantized import MAX_KERNEL_ROWS

Bits = Literal[8, 4]

# Bits and group; 8 bits have one group, as long as the row.
FORMATS: list[tuple[Bits, int]] = [(8, 0), (4, 32), (4, 64), (4, 128)]
# Rows, inputs, outputs: one row; one tile of 16 rows, of 32, of 64; nothing a multiple of a tile.
SHAPES = [(1, 7, 5), (1, 24, 9), (1, 2100, 6), (2, 24, 18), (16, 129, 17), (17, 300, 33)]
TOLERANCES = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-6}


@dataclass(frozen=True)
class Weight:
    """A random weight in its format, and in float64 [out, in]."""

    bits: Bits
    group: int
    stored: Tensor
    scales: Tensor
    dense: Tensor


def random_weight(bits: Bits, group: int, num_inputs: int, num_outputs: int) -> Weight:
    generator = torch.Generator().manual_seed(num_inputs)
    group = num_inputs if bits == 8 else group
    num_groups = -(-num_inputs // group)
    low, high = (-127, 128) if bits == 8 else (-8, 8)
    # All groups are full, the last one too: what stands behind the inputs must not count.
    values = torch.randint(low, high, (num_outputs, num_groups, group), generator=generator)
    scales = (torch.rand(num_groups, num_outputs, generator=generator) - 0.5).to(torch.bfloat16)
    dense = (values * scales.T.double()[:, :, None]).flatten(1)[:, :num_inputs]
    if bits == 8:
        return Weight(bits, group, values[:, 0].to(torch.int8), scales, dense)
    stored = torch.empty(num_groups, num_outputs, group // 2, dtype=torch.uint8)
    for byte in range(group // 2):
        first, second = values[:, :, byte] + 8, values[:, :, byte + group // 2] + 8
        stored[:, :, byte] = (first + 16 * second).T
    return Weight(bits, group, stored, scales, dense)


def random_rows(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def product(x: Tensor, weight: Weight, bias: Tensor | None = None) -> Tensor:
    return weight_only_linear(
        x, weight.stored, weight.scales, bias, bits=weight.bits, group=weight.group
    )


def assert_is_product(
    out: Tensor, x: Tensor, weight: Weight, bias: Tensor | None, dtype: torch.dtype
) -> None:
    expected = x.double() @ weight.dense.T
    if bias is not None:
        expected += bias.double()
    assert out.dtype is dtype
    tolerance = TOLERANCES[dtype]
    scale = float(expected.abs().max())
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
@pytest.mark.parametrize(("bits", "group"), FORMATS)
def test_it_is_the_product_with_the_weight_written_out(
    bits: Bits, group: int, rows: int, inputs: int, outputs: int, dtype: torch.dtype
) -> None:
    weight = random_weight(bits, group, inputs, outputs)
    x, bias = random_rows(rows, inputs, dtype=dtype), random_rows(outputs, dtype=dtype)
    assert_is_product(product(x, weight, bias), x, weight, bias, dtype)


@pytest.mark.parametrize(("bits", "group"), FORMATS)
def test_as_many_rows_as_fit_are_one_product(bits: Bits, group: int) -> None:
    weight = random_weight(bits, group, 70, 35)
    assert MAX_KERNEL_ROWS <= MAX_ROWS  # what layers hand over, and what the kernel takes
    x = random_rows(MAX_ROWS, 70)
    assert_is_product(product(x, weight), x, weight, None, torch.float32)


# The interpreter multiplies matrices of bfloat16 wrongly; a single row is no matrix.
@pytest.mark.parametrize(("bits", "group"), FORMATS)
def test_a_row_of_bfloat16_is_summed_in_float32(bits: Bits, group: int) -> None:
    weight = random_weight(bits, group, 300, 9)
    x, bias = (
        random_rows(1, 300, dtype=torch.bfloat16),
        random_rows(9, dtype=torch.bfloat16),
    )
    assert_is_product(product(x, weight, bias), x, weight, bias, torch.bfloat16)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 64)])
def test_a_long_sum_over_few_channels_is_split_and_the_bias_added_once(
    bits: Bits, group: int, with_bias: bool
) -> None:
    weight = random_weight(bits, group, 3100, 20)
    x = random_rows(3, 3100)
    bias = 1000 * random_rows(20) if with_bias else None
    assert_is_product(product(x, weight, bias), x, weight, bias, torch.float32)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 64)])
def test_without_a_bias_none_is_added(bits: Bits, group: int, rows: int) -> None:
    weight = random_weight(bits, group, 40, 6)
    x = random_rows(rows, 40)
    assert_is_product(product(x, weight), x, weight, None, torch.float32)


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 64)])
def test_a_row_s_result_does_not_depend_on_its_neighbours(bits: Bits, group: int) -> None:
    weight = random_weight(bits, group, 90, 21)
    x = random_rows(9, 90)
    x[4:] *= 1e20
    torch.testing.assert_close(product(x, weight)[:4], product(x[:4], weight), rtol=0, atol=0)


@pytest.mark.parametrize("rows", [1, 4])
def test_x_may_be_a_view(rows: int) -> None:
    weight = random_weight(4, 64, 50, 6)
    x = random_rows(50, 2 * rows).T[::2]
    assert_is_product(product(x, weight), x, weight, None, torch.float32)


def test_no_rows_give_no_rows() -> None:
    assert product(random_rows(0, 40), random_weight(8, 0, 40, 6)).shape == (0, 6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("inputs", [7, 130, 530])
@pytest.mark.parametrize(("bits", "group"), FORMATS)
def test_a_dequantised_weight_is_rounded_once(
    bits: Bits, group: int, inputs: int, dtype: torch.dtype
) -> None:
    weight = random_weight(bits, group, inputs, 67)
    plain = dequantize_weight(
        weight.stored, weight.scales, num_inputs=inputs, bits=bits, group=weight.group, dtype=dtype
    )
    # The interpreter cuts bfloat16 off where a device rounds: one step of eight bits.
    rtol = 2**-7 if dtype is torch.bfloat16 else 0
    torch.testing.assert_close(plain, weight.dense.to(dtype), rtol=rtol, atol=0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bits": 2}, "bits"),
        ({"group": 32}, "scales"),
        ({"group": 48}, "group"),
        ({"bits": 8}, "group"),
        ({"bits": 8, "group": 100}, "scales"),
        ({"x": torch.zeros(2, 200)}, "scales"),
        ({"x": torch.zeros(MAX_ROWS + 1, 100)}, "x"),
        ({"x": torch.zeros(100)}, "x"),
        ({"x": torch.zeros(2, 100, dtype=torch.float64)}, "dtype"),
        ({"weight": torch.zeros(2, 6, 32, dtype=torch.int8)}, "weight"),
        ({"weight": torch.zeros(2, 32, 6, dtype=torch.uint8).transpose(1, 2)}, "weight"),
        ({"scales": torch.zeros(6, 2).T}, "scales"),
        ({"bias": torch.zeros(5)}, "bias"),
    ],
)
def test_what_is_not_in_the_format_is_named(changes: dict[str, object], named: str) -> None:
    weight = random_weight(4, 64, 100, 6)
    given: dict[str, object] = {
        "x": torch.zeros(2, 100),
        "weight": weight.stored,
        "scales": weight.scales,
        "bias": None,
        "bits": 4,
        "group": 64,
    }
    weight_only_linear(**given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^{named}: "):
        weight_only_linear(**{**given, **changes})  # type: ignore[arg-type]
