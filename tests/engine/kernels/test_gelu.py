"""The fused activation against the error function in float64."""

import math

import pytest
import torch
from torch import Tensor

from engine.kernels.gelu import bias_gelu


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def reference(x: Tensor, bias: Tensor) -> Tensor:
    """GELU as its paper has it, in float64."""
    values = x.double() + bias.double()
    return values * 0.5 * (1 + torch.erf(values / math.sqrt(2)))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.float32, 1e-6)],
    ids=str,
)
@pytest.mark.parametrize("width", [1, 100, 1024, 1536])
def test_the_activation_is_exact_at_every_width(
    width: int, dtype: torch.dtype, tolerance: float
) -> None:
    x, bias = 3 * normal(3, width, seed=0, dtype=dtype), normal(width, seed=1, dtype=dtype)
    activated = bias_gelu(x, bias)
    assert activated.dtype == dtype
    expected = reference(x, bias)
    torch.testing.assert_close(activated.double(), expected, rtol=tolerance, atol=tolerance)


def test_it_may_be_written_over_its_own_input_and_nothing_beside() -> None:
    wide = torch.full((5, 40), 7.0)
    x = wide[::2, 4:34]
    x.copy_(normal(3, 30, seed=0))
    bias = normal(30, seed=1)
    expected = wide.clone()
    expected[::2, 4:34] = reference(x, bias).float()
    assert bias_gelu(x, bias, out=x) is x
    torch.testing.assert_close(wide, expected, rtol=1e-6, atol=1e-6)


def test_no_tokens_are_no_work() -> None:
    assert bias_gelu(torch.empty(0, 8), torch.zeros(8)).shape == (0, 8)


@pytest.mark.parametrize(
    ("x", "out", "size", "message"),
    [
        (torch.zeros(8), None, 8, "x is"),
        (torch.zeros(8, 2).t(), None, 8, "x is"),
        (torch.zeros(2, 8), None, 4, "bias is"),
        (torch.zeros(2, 8), torch.zeros(3, 8), 8, "out is"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    x: Tensor, out: Tensor | None, size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bias_gelu(x, torch.zeros(size), out)
