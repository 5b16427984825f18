"""Noise for drawing tokens: a pure function of a seed, a target and a token's id.

A draw by the Gumbel-max trick needs one number per token. A hash gives it without any state, so
that a draw can be repeated, does not depend on the batch around it and can be captured in a CUDA
graph. `token_choice` computes the same in its kernel; this is its plain twin.
"""

from typing import Final

import torch
from torch import Tensor

_MASK: Final = 0xFFFF_FFFF
_GOLDEN: Final = 0x9E37_79B9  # 2**32 over the golden ratio: keeps a zero from hashing to zero


def _mix(x: Tensor) -> Tensor:
    """The integer hash `lowbias32` (Chris Wellons, hash-prospector) of int64 below 2**32.

    A product of two such numbers may overflow int64; its low 32 bits are right all the same.
    """
    x = x ^ (x >> 16)
    x = (x * 0x7FEB_352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846C_A68B) & _MASK
    return x ^ (x >> 16)


def noise_bits(seeds: Tensor, targets: Tensor, num_vocab: int) -> Tensor:
    """Hash each of `num_vocab` token ids for each row.

    `seeds` and `targets` are [rows] int64, all of whose seed bits and low 32 target bits count.
    Returns [rows, num_vocab] int64, each below 2**32.
    """
    keys = _mix(((seeds & _MASK) + _GOLDEN) & _MASK)
    keys = _mix((keys + ((seeds >> 32) & _MASK)) & _MASK)
    keys = _mix((keys + (targets & _MASK)) & _MASK)
    ids = torch.arange(num_vocab, device=seeds.device)
    return _mix(_mix((ids + _GOLDEN) & _MASK) ^ keys[:, None])


def gumbel_noise(seeds: Tensor, targets: Tensor, num_vocab: int) -> Tensor:
    """Standard Gumbel noise for each of `num_vocab` tokens of each row.

    `seeds` and `targets` are [rows] int64. Returns [rows, num_vocab] float32, finite. The token
    with the greatest `logit / temperature + noise` is a draw from the softmax (Gumbel 1954;
    Maddison, Tarlow, Minka 2014).
    """
    bits = noise_bits(seeds, targets, num_vocab).to(torch.float32)
    uniform = (bits * 2.0**-32 + 2.0**-33).clamp(max=1.0 - 2.0**-24)
    # Small numbers decide a draw, and 1 - uniform would round them away.
    small = uniform * (1.0 + uniform * (0.5 + uniform * (1.0 / 3.0)))
    exponential = torch.where(uniform < 2.0**-8, small, -torch.log(1.0 - uniform))
    return -torch.log(exponential)
