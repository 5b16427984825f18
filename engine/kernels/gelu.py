"""A bias and the exact GELU in one pass.

The plain twin is a sum and `torch.nn.functional.gelu`.
"""

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE: Final = 1024
_SQRT_HALF: Final = 0.7071067811865476


def bias_gelu(x: Tensor, bias: Tensor, out: Tensor | None = None) -> Tensor:
    """Give gelu(x + bias), with the error function rather than its tanh approximation.

    `x` is [tokens, width] of any float type, each token contiguous; `bias` is [width]. Computed in
    float32, without rounding in between, and rounded to the type of `out`: a new tensor like `x`,
    or one that is given, which may be `x` itself. Raises ValueError where shapes do not fit.
    Hendrycks, Gimpel 2016.
    """
    if x.dim() != 2 or x.stride(1) != 1:
        raise ValueError(f"x is [tokens, width] with contiguous tokens, got {x.shape}")
    num_tokens, width = x.shape
    if bias.shape != (width,):
        raise ValueError(f"bias is [{width}], got {bias.shape}")
    if out is None:
        out = torch.empty((num_tokens, width), dtype=x.dtype, device=x.device)
    elif out.shape != x.shape or out.stride(1) != 1:
        raise ValueError(f"out is [{num_tokens}, {width}] with contiguous tokens, got {out.shape}")
    if num_tokens == 0:
        return out
    _bias_gelu[(num_tokens, triton.cdiv(width, _TILE))](
        x,
        x.stride(0),
        bias,
        out,
        out.stride(0),
        width,
        _SQRT_HALF,
        TILE=_TILE,
        num_warps=4,
    )
    return out


@triton.jit
def _bias_gelu(
    x,  # [tokens, width]
    x_stride,
    bias,  # [width]
    out,  # [tokens, width]
    out_stride,
    width,
    sqrt_half,
    TILE: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    real = at < width
    values = tl.load(x + token * x_stride + at, mask=real, other=0.0).to(tl.float32)
    values += tl.load(bias + at, mask=real, other=0.0).to(tl.float32)
    values = 0.5 * values * (1.0 + tl.erf(values * sqrt_half))
    tl.store(out + token * out_stride + at, values.to(out.dtype.element_ty), mask=real)
