"""The fused sum and norm against float64, at states of every shape."""

import pytest
import torch
from torch import Tensor

from engine.kernels.layer_norm import add_layer_norm

EPS = 1e-5
TOLERANCE = {torch.float16: 2e-3, torch.float32: 3e-6}


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def reference(total: Tensor, weight: Tensor, bias: Tensor, eps: float = EPS) -> Tensor:
    """Layer norm as its paper has it, in float64."""
    values = total.double()
    centred = values - values.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / (variance + eps).sqrt() * weight.double() + bias.double()


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("state", [1, 48, 384, 1280])
def test_the_sum_is_rounded_once_and_then_normed(state: int, dtype: torch.dtype) -> None:
    hidden, update = (3 * normal(5, state, seed=seed, dtype=dtype) for seed in (0, 1))
    weight, bias = (normal(state, seed=seed, dtype=dtype) for seed in (2, 3))
    total, normed = add_layer_norm(hidden, update, weight, bias)
    torch.testing.assert_close(total, hidden + update, rtol=0, atol=0)
    expected = reference(total, weight, bias)
    tolerance = TOLERANCE[dtype]
    assert normed.dtype == dtype
    torch.testing.assert_close(normed.double(), expected, rtol=tolerance, atol=tolerance)


def test_without_an_update_hidden_itself_is_the_sum() -> None:
    hidden, weight, bias = normal(3, 80, seed=0), normal(80, seed=1), normal(80, seed=2)
    total, normed = add_layer_norm(hidden, None, weight, bias)
    assert total is hidden
    expected = reference(hidden, weight, bias).float()
    torch.testing.assert_close(normed, expected, rtol=3e-6, atol=3e-6)


def test_a_large_mean_does_not_drown_the_variance() -> None:
    hidden = normal(2, 384, seed=0) + 4_000
    weight, bias = torch.ones(384), torch.zeros(384)
    normed = add_layer_norm(hidden, None, weight, bias)[1]
    torch.testing.assert_close(
        normed.double(), reference(hidden, weight, bias), rtol=1e-3, atol=1e-3
    )


def test_tokens_may_lie_apart_and_what_lies_between_is_not_seen() -> None:
    wide = torch.full((7, 64), torch.nan)
    hidden, update = wide[1::2, :24], wide[1::2, 40:]
    hidden.copy_(normal(3, 24, seed=0))
    update.copy_(normal(3, 24, seed=1))
    weight, bias = normal(24, seed=2), normal(24, seed=3)
    total, normed = add_layer_norm(hidden, update, weight, bias, eps=0.1)
    assert total.is_contiguous()
    torch.testing.assert_close(total, hidden + update, rtol=0, atol=0)
    expected = reference(total, weight, bias, eps=0.1).float()
    torch.testing.assert_close(normed, expected, rtol=3e-6, atol=3e-6)


def test_no_tokens_are_no_work() -> None:
    total, normed = add_layer_norm(
        torch.empty(0, 8), torch.empty(0, 8), torch.ones(8), torch.zeros(8)
    )
    assert total.shape == normed.shape == (0, 8)


@pytest.mark.parametrize(
    ("hidden", "update", "size", "message"),
    [
        (torch.zeros(8), None, 8, "hidden is"),
        (torch.zeros(8, 2).t(), None, 8, "hidden is"),
        (torch.zeros(2, 8), torch.zeros(2, 4), 8, "the update is not like hidden"),
        (torch.zeros(2, 8), torch.zeros(2, 8).half(), 8, "the update is not like hidden"),
        (torch.zeros(2, 8), None, 4, "weight and bias are"),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_refused(
    hidden: Tensor, update: Tensor | None, size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        add_layer_norm(hidden, update, torch.ones(size), torch.zeros(size))


def test_a_half_precision_sum_stays_within_its_range() -> None:
    large = torch.full((2, 24), 60000.0, dtype=torch.float16)
    total, normed = add_layer_norm(large, large, torch.ones(24).half(), torch.zeros(24).half())
    assert total.tolist() == [[65504.0] * 24] * 2
    assert not normed.isnan().any()
