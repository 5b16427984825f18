"""The small operations between the large ones, in the form that suits the device.

On a processor they are torch's own. On a GPU each is one launch instead of two or three, and at
a batch of one launches are what decoding waits for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGEST: Final = torch.finfo(torch.float16).max


@dataclass(frozen=True, slots=True)
class Ops:
    """`add_norm` adds an update, if there is one, and gives the sum and its layer norm.

    `gelu` is GELU (erf) behind a linear layer.
    """

    add_norm: Callable[[Tensor, Tensor | None, nn.LayerNorm], tuple[Tensor, Tensor]]
    gelu: Callable[[Tensor, nn.Module], Tensor]


def _add_norm(hidden: Tensor, update: Tensor | None, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    total = hidden if update is None else hidden + update
    if total.dtype is torch.float16:
        # The residual of the large models comes near float16's end; an infinity would be a NaN
        # in every layer behind it (`transformers` clamps there too).
        total = total.clamp(-_LARGEST, _LARGEST)
    return total, cast("Tensor", norm(total))


def _gelu(x: Tensor, linear: nn.Module) -> Tensor:
    return F.gelu(linear(x))


PLAIN: Final = Ops(_add_norm, _gelu)


def fused_ops() -> Ops:
    """The same as Triton kernels. Raises ImportError where Triton is not installed."""
    from engine.kernels.gelu import bias_gelu
    from engine.kernels.layer_norm import add_layer_norm

    def add_norm(
        hidden: Tensor, update: Tensor | None, norm: nn.LayerNorm
    ) -> tuple[Tensor, Tensor]:
        total, normed = add_layer_norm(
            hidden.flatten(0, -2),
            None if update is None else update.flatten(0, -2),
            norm.weight,
            norm.bias,
            norm.eps,
        )
        return total.view(hidden.shape), normed.view(hidden.shape)

    def gelu(x: Tensor, linear: nn.Module) -> Tensor:
        # A quantised layer has its bias in its own kernel.
        if not isinstance(linear, nn.Linear):
            return F.gelu(linear(x))
        grown = F.linear(x, linear.weight)
        flat = grown.flatten(0, -2)
        bias_gelu(flat, linear.bias, out=flat)
        return grown

    return Ops(add_norm, gelu)
