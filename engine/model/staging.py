"""From the host's memory to a device, without waiting for the copy."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def pinned(values: NDArray[Any], device: torch.device) -> Tensor:
    """`values` where `device` can fetch them by itself; for a processor, `values` themselves."""
    staged = torch.from_numpy(values)
    return staged.pin_memory() if device.type == "cuda" else staged


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """`values` on `device`, as far as whoever uses them there can tell."""
    return pinned(values, device).to(device, non_blocking=True)
