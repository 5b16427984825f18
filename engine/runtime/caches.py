"""Every per-slot tensor on the device: keys and values, tokens, and the rules in force."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.audio.units import MAX_WINDOW_POSITIONS
from engine.model.attention import LayerCache
from engine.model.dims import ModelDims


@dataclass(frozen=True, slots=True)
class SlotCaches:
    """Device tensors indexed by slot. Touched only by the engine thread."""

    layers: tuple[LayerCache, ...]
    tokens: Tensor  # [slots, n_text_ctx] int64, everything fed or chosen
    lengths: Tensor  # [slots] int64, valid tokens
    begins: Tensor  # [slots] int64, Sampling.begin
    timestamps: Tensor  # [slots] bool, Sampling.timestamps

    @classmethod
    def allocate(
        cls, dims: ModelDims, num_slots: int, *, dtype: torch.dtype, device: torch.device
    ) -> "SlotCaches":
        """Memory for `num_slots` slots; on a CPU untouched pages cost nothing."""
        heads, head_dim = dims.n_text_head, dims.n_text_state // dims.n_text_head

        def zeros(*shape: int, kind: torch.dtype = dtype) -> Tensor:
            return torch.zeros(shape, dtype=kind, device=device)

        return cls(
            layers=tuple(
                LayerCache(
                    zeros(num_slots, dims.n_text_ctx, heads, head_dim),
                    zeros(num_slots, dims.n_text_ctx, heads, head_dim),
                    zeros(num_slots, heads, MAX_WINDOW_POSITIONS, head_dim),
                    zeros(num_slots, heads, MAX_WINDOW_POSITIONS, head_dim),
                )
                for _ in range(dims.n_text_layer)
            ),
            tokens=zeros(num_slots, dims.n_text_ctx, kind=torch.int64),
            lengths=zeros(num_slots, kind=torch.int64),
            begins=zeros(num_slots, kind=torch.int64),
            timestamps=zeros(num_slots, kind=torch.bool),
        )


def slot_bytes(dims: ModelDims, dtype: torch.dtype) -> int:
    """Device memory of one slot; all but a few bytes are keys and values."""
    per_layer = 2 * dims.n_text_state * (dims.n_text_ctx + MAX_WINDOW_POSITIONS)
    return dims.n_text_layer * per_layer * dtype.itemsize
