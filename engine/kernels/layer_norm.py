"""A residual sum and its layer norm in one launch: each token is read once.

The plain twin is a sum and `torch.nn.functional.layer_norm`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def add_layer_norm(
    hidden: Tensor, update: Tensor | None, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Give `hidden + update` and its layer norm over the last dimension.

    `hidden` and `update` are [tokens, state] of one float type, each token contiguous; `weight`
    and `bias` are [state]. Both results are contiguous and of `hidden`'s type. The sum is rounded
    to that type before it is normed, as two separate operations would round it; mean and variance
    are in float32, the variance around the mean (Ba, Kiros, Hinton 2016). Without an update
    `hidden` itself is the sum. A float16 sum beyond the format's range becomes its largest number:
    the residual of the large models comes near it. Raises ValueError where shapes or types do not
    fit.
    """
    if hidden.dim() != 2 or hidden.stride(1) != 1:
        raise ValueError(f"hidden is [tokens, state] with contiguous tokens, got {hidden.shape}")
    num_tokens, state = hidden.shape
    if weight.shape != (state,) or bias.shape != (state,):
        raise ValueError(f"weight and bias are [{state}], got {weight.shape} and {bias.shape}")
    total = hidden
    if update is not None:
        if update.shape != hidden.shape or update.dtype != hidden.dtype or update.stride(1) != 1:
            raise ValueError(f"the update is not like hidden: {update.shape}, {update.dtype}")
        total = torch.empty((num_tokens, state), dtype=hidden.dtype, device=hidden.device)
    normed = torch.empty((num_tokens, state), dtype=hidden.dtype, device=hidden.device)
    if num_tokens == 0:
        return total, normed
    _add_layer_norm[(num_tokens,)](
        hidden,
        hidden.stride(0),
        hidden if update is None else update,
        0 if update is None else update.stride(0),
        weight,
        bias,
        total,
        normed,
        state,
        eps,
        HAS_UPDATE=update is not None,
        STATE=triton.next_power_of_2(state),
        CLAMP=hidden.dtype is torch.float16,
        LARGEST=torch.finfo(torch.float16).max,
        num_warps=4,
    )
    return total, normed


@triton.jit
def _add_layer_norm(
    hidden,  # [tokens, state]
    hidden_stride,
    update,  # [tokens, state]
    update_stride,
    weight,  # [state]
    bias,  # [state]
    total,  # [tokens, state]
    normed,  # [tokens, state]
    state,
    eps,
    HAS_UPDATE: tl.constexpr,
    STATE: tl.constexpr,
    CLAMP: tl.constexpr,
    LARGEST: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, STATE)
    real = at < state
    values = tl.load(hidden + token * hidden_stride + at, mask=real, other=0.0).to(tl.float32)
    scale = tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
    shift = tl.load(bias + at, mask=real, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        values += tl.load(update + token * update_stride + at, mask=real, other=0.0).to(tl.float32)
        if CLAMP:
            values = tl.clamp(values, -LARGEST, LARGEST)
        rounded = values.to(total.dtype.element_ty)
        tl.store(total + token * state + at, rounded, mask=real)
        values = rounded.to(tl.float32)
    mean = tl.sum(values, axis=0) / state
    centred = tl.where(real, values - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / state
    result = centred * (1.0 / tl.sqrt_rn(variance + eps)) * scale + shift
    tl.store(normed + token * state + at, result.to(normed.dtype.element_ty), mask=real)
