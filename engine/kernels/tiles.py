"""How much of queries and keys one program takes, and in which format it multiplies."""

from functools import cache
from typing import Any, Final

import torch
import triton.language as tl
from torch import Tensor

from engine.kernels.plain_attention import FLOAT8

# Keys of one pass of a program; splits begin at multiples of it.
KEYS_PER_BLOCK: Final = 64
# Of no importance but to the interpreter, in which kernels are tested.
CPU_MULTIPROCESSORS: Final = 8

_DOT_TYPES: Final = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
}


def queries_per_block(width: int, *, exact: bool) -> int:
    """Queries of one program; float32 products are made in registers, of which there are few."""
    return 16 if width <= 16 or exact else 32 if width <= 32 else 64


def keys_per_block(keys: Tensor) -> int:
    """Keys of one pass: of large vectors fewer, as shared memory holds two passes."""
    return KEYS_PER_BLOCK if keys.shape[-1] * keys.element_size() <= 256 else KEYS_PER_BLOCK // 2


def dot_type_of(query: Tensor, keys: Tensor) -> tuple[Any, bool]:
    """The type that `tl.dot` multiplies, and whether it is float32."""
    kind = query.dtype if keys.dtype in (query.dtype, FLOAT8) else torch.float32
    return _DOT_TYPES[kind], kind == torch.float32


def first_strides(tensor: Tensor | None) -> tuple[int, ...]:
    """The first three strides, of which an absent tensor has none that matter."""
    return (0, 0, 0) if tensor is None else tensor.stride()[:3]


@cache
def num_multiprocessors(device: torch.device) -> int:
    """Of a CUDA device; a processor counts as a small one."""
    if device.type != "cuda":
        return CPU_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count
