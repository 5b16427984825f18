"""Muon (Jordan and others, 2024) for many small matrices: all of one shape in the same products.

torch.optim.Muon takes matrix after matrix: some thirty launches each, which for this model cost
a GPU more time than the step's arithmetic.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from training.errors import RecipeError

_MOMENTUM: Final = 0.95
_DECAY: Final = 0.01
# A quintic whose iteration takes every singular value to near one; Newton and Schulz's, tuned.
_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
_ITERATIONS: Final = 5
_SMALLEST_NORM: Final = 1e-7


class Muon:
    """Momentum steps [rows, columns], each made orthogonal, scaled by the shape's square root.

    Touched only by its owner.
    """

    def __init__(self, matrices: Sequence[nn.Parameter]) -> None:
        self._momenta = [torch.zeros_like(matrix) for matrix in matrices]
        by_shape: defaultdict[torch.Size, list[int]] = defaultdict(list)
        for index, matrix in enumerate(matrices):
            by_shape[matrix.shape].append(index)
        self._matrices: list[Tensor] = list(matrices)
        self._by_shape = dict(by_shape)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every matrix against its gradient, at that rate."""
        gradients = [matrix.grad for matrix in self._matrices if matrix.grad is not None]
        if len(gradients) != len(self._matrices):
            raise RecipeError(
                f"expected gradients of {len(self._matrices)} matrices, found {len(gradients)}"
            )
        torch._foreach_lerp_(self._momenta, gradients, 1 - _MOMENTUM)
        ahead = torch._foreach_lerp(gradients, self._momenta, _MOMENTUM)
        torch._foreach_mul_(self._matrices, 1 - rate * _DECAY)
        for shape, indices in self._by_shape.items():
            steps = orthogonal(torch.stack([ahead[i] for i in indices]))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            moved = [self._matrices[i] for i in indices]
            torch._foreach_add_(moved, list(steps.to(moved[0].dtype)), alpha=-rate * scale)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for matrix in self._matrices:
            matrix.grad = None

    def state_dict(self) -> dict[str, Any]:
        """What a later run goes on from."""
        return {"momenta": self._momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for momentum, saved in zip(self._momenta, state["momenta"], strict=True):
            momentum.copy_(saved)


def orthogonal(matrices: Tensor) -> Tensor:
    """[n, rows, columns] with singular values near one and the same singular vectors, bfloat16."""
    a, b, c = _QUINTIC
    scaled = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=_SMALLEST_NORM)
    x = scaled.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return cast("Tensor", x.mT if is_tall else x)
