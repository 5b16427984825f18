"""The small operations fused, interpreted, against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("triton")

from engine.model.ops import PLAIN, Ops, fused_ops
from engine.model.quantized import QuantizedLinear

OPS = {"plain": PLAIN, "fused": fused_ops()}
STATE, WIDTH = 24, 40


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@torch.no_grad()
def layer_norm(dtype: torch.dtype = torch.float32) -> nn.LayerNorm:
    norm = nn.LayerNorm(STATE).to(dtype)
    norm.weight.copy_(normal(STATE, seed=1))
    norm.bias.copy_(normal(STATE, seed=2))
    return norm


@torch.no_grad()
def linear(dtype: torch.dtype = torch.float32) -> nn.Linear:
    layer = nn.Linear(STATE, WIDTH).to(dtype)
    layer.weight.copy_(normal(WIDTH, STATE, seed=3))
    layer.bias.copy_(3 * normal(WIDTH, seed=4))
    return layer.requires_grad_(False)


# Tokens of a decoder, windows of an encoder.
SHAPES = [(5, STATE), (2, 3, STATE)]


@pytest.mark.parametrize("ops", OPS.values(), ids=OPS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 4e-3)], ids=str
)
@torch.no_grad()
def test_an_update_is_added_and_the_sum_is_normed(
    ops: Ops, shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    hidden, update = (normal(*shape, seed=seed, dtype=dtype) for seed in (5, 6))
    norm = layer_norm(dtype)
    before = hidden.clone()
    total, normed = ops.add_norm(hidden, update, norm)
    torch.testing.assert_close(total, hidden + update, rtol=0, atol=0)
    expected = layer_norm()(total.float()).to(dtype)
    torch.testing.assert_close(normed, expected, rtol=tolerance, atol=tolerance)
    assert total.shape == normed.shape == shape
    torch.testing.assert_close(hidden, before, rtol=0, atol=0)


@pytest.mark.parametrize("ops", OPS.values(), ids=OPS)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_without_an_update_what_came_in_is_normed(ops: Ops, shape: tuple[int, ...]) -> None:
    hidden, norm = normal(*shape, seed=5), layer_norm()
    total, normed = ops.add_norm(hidden, None, norm)
    torch.testing.assert_close(total, hidden, rtol=0, atol=0)
    torch.testing.assert_close(normed, norm(hidden), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ops", OPS.values(), ids=OPS)
@torch.no_grad()
def test_a_norm_s_own_epsilon_is_kept(ops: Ops) -> None:
    norm = nn.LayerNorm(STATE, eps=0.5)
    hidden = 0.1 * normal(3, STATE, seed=7)
    normed = ops.add_norm(hidden, None, norm)[1]
    torch.testing.assert_close(normed, norm(hidden), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ops", OPS.values(), ids=OPS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-2)], ids=str
)
def test_gelu_follows_a_linear_layer_with_its_bias(
    ops: Ops, shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    x, layer = normal(*shape, seed=8, dtype=dtype), linear(dtype)
    grown = ops.gelu(x, layer)
    assert grown.shape == (*shape[:-1], WIDTH)
    assert grown.dtype is dtype
    exact = F.gelu(F.linear(x.double(), layer.weight.double(), layer.bias.double()))
    torch.testing.assert_close(grown.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("ops", OPS.values(), ids=OPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_quantised_layer_adds_its_bias_itself_and_once(ops: Ops, shape: tuple[int, ...]) -> None:
    x, layer = normal(*shape, seed=9), QuantizedLinear(linear(), "int8")
    assert layer.bias is not None
    expected = F.gelu(F.linear(x, layer.dequantized(torch.float32), layer.bias))
    torch.testing.assert_close(ops.gelu(x, layer), expected, rtol=1e-5, atol=1e-5)
