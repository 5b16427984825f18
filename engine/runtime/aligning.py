"""The aligning pass of whole hypotheses: rare, of any length, so row by row on every device."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.decoding.alignment import token_boundaries
from engine.model.attention import Packed
from engine.model.staging import to_device
from engine.model.whisper import Whisper
from engine.runtime.caches import SlotCaches
from engine.scheduling.steps import AlignResult, AlignRow, BoundaryRow


def look_at(
    model: Whisper, caches: SlotCaches, rows: Sequence[AlignRow], contexts: Sequence[int]
) -> list[Tensor]:
    """Where the alignment heads look in the audible part of each row's window.

    For each row [heads, tokens, positions] float32 on the device, a distribution over positions.
    Overwrites what the slots' self-attention remembers.
    """
    device = caches.tokens.device
    spans = tuple((row.slot.index, 0, len(row.tokens)) for row in rows)
    packed = Packed.build(spans, tuple(contexts), device)
    tokens = to_device(np.array([token for row in rows for token in row.tokens]), device)
    hidden = model.decoder.embed(tokens, packed.positions)
    decoded = model.decoder(hidden, packed, caches.layers, align=True)
    looks = []
    for row, weights in zip(rows, by_row(decoded.looks), strict=True):
        audible = weights[:, :, : row.num_positions]
        looks.append(audible / audible.sum(dim=-1, keepdim=True))
    return looks


class OnHost(Protocol):
    """A tensor on a processor, or one that has been copied to it."""

    def numpy(self) -> NDArray[Any]:
        """Its values."""


def boundaries_of(rows: Sequence[AlignRow], looks: Sequence[OnHost]) -> AlignResult:
    """Token boundaries from what `look_at` gave, once it is on the host."""
    found = (
        token_boundaries(weights.numpy(), row.num_forced)
        for row, weights in zip(rows, looks, strict=True)
    )
    return AlignResult(
        tuple(
            BoundaryRow(row.slot, tuple(boundaries.tolist()))
            for row, boundaries in zip(rows, found, strict=True)
        )
    )


def by_row(looks: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """What a `Packed` pass looked at, by layer, as [heads of all layers, tokens, positions]."""
    return [torch.cat(row) for row in zip(*looks, strict=True)]
