"""float8 (e4m3) in kernels: bytes to float32 and back, by the device itself or by hand.

Ada and Hopper read it with an instruction, Ampere by arithmetic on bits. Writing is arithmetic
everywhere, so that bytes and scales are those of the plain twin.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.plain_attention import FLOAT8


def stored_bytes(cache: Tensor) -> Tensor:
    """What the kernels read and write: float8 as bytes, so that any GPU can hold it."""
    return cache.view(torch.uint8) if cache.dtype == FLOAT8 else cache


@cache
def has_native_float8(device: torch.device) -> bool:
    """Whether the device converts float8 by itself: Ada and Hopper do, Ampere does not."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


@triton.jit
def float8_to_float32(stored, NATIVE: tl.constexpr):
    """The float32 that bytes of float8_e4m3fn stand for.

    Without native conversion the bits are those of a float16 whose exponent is off by eight.
    Its two NaN bytes, which quantising never writes, then read as 480.
    """
    if NATIVE:
        return stored.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    # Sign extension puts the sign into bits 15 and 14 of the shifted word; 14 is cleared.
    wide = (stored.to(tl.int8, bitcast=True).to(tl.int16) << 7) & -16385
    return wide.to(tl.float16, bitcast=True).to(tl.float32) * 256.0


@triton.jit
def float32_to_float8(numbers):
    """Bytes of float8_e4m3fn nearest to float32 `numbers`, ties to even, at most 448."""
    size = tl.minimum(tl.abs(numbers), 448.0)
    bits = size.to(tl.int32, bitcast=True)
    # Twenty bits of mantissa are rounded away; the exponents' biases are 127 and 7.
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - ((127 - 7) << 3)
    # Below 2**-6 all steps are 2**-9, which are those of a float32 at 2**14.
    subnormal = (size + 16384.0).to(tl.int32, bitcast=True) - 0x46800000
    code = tl.where(size < 0.015625, subnormal, normal)
    sign = (numbers.to(tl.int32, bitcast=True) >> 24) & 0x80
    return (code | sign).to(tl.uint8)


@triton.jit
def scales_of(vectors, AXIS: tl.constexpr):
    """The scale of each vector, with which it uses float8's whole range."""
    # Division rounded as IEEE has it, here and below, gives the same bytes as the plain twin.
    return tl.div_rn(tl.max(tl.abs(vectors), axis=AXIS), 448.0)


@triton.jit
def quantised(vectors, scales):
    """Bytes of `vectors` over their `scales`."""
    return float32_to_float8(tl.div_rn(vectors, tl.where(scales > 0, scales, 1.0)))


@triton.jit
def widened(stored, QUANTISED: tl.constexpr, NATIVE: tl.constexpr):
    """What a cache holds as float32, without its scale."""
    if QUANTISED:
        return float8_to_float32(stored, NATIVE)
    return stored.to(tl.float32)
