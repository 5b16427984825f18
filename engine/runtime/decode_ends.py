"""Where a decode step takes its tokens from, and where it leaves what was chosen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from engine.model.decoder import TextDecoder
from engine.runtime.caches import SlotCaches


@dataclass(frozen=True, slots=True)
class DecodeEnds:
    """Both ends of a step over `slots` [rows] int64, as fits the device.

    `begin` embeds each slot's last token: [rows, state], lengths and contexts [rows] int64.
    `finish` appends what was chosen behind `seen` tokens and gives tokens and the bits of their
    log-probabilities, [2, rows] int32.
    """

    begin: Callable[[Tensor, SlotCaches, TextDecoder], tuple[Tensor, Tensor, Tensor]]
    finish: Callable[[Tensor, Tensor, Tensor, Tensor, SlotCaches], Tensor]


def _begin(
    slots: Tensor, caches: SlotCaches, decoder: TextDecoder
) -> tuple[Tensor, Tensor, Tensor]:
    seen = caches.lengths[slots]
    last = seen - 1
    return decoder.embed(caches.tokens[slots, last], last), seen, caches.contexts[slots]


def _finish(
    slots: Tensor, seen: Tensor, chosen: Tensor, logprobs: Tensor, caches: SlotCaches
) -> Tensor:
    caches.tokens[slots, seen] = chosen
    # The scratch row is decoded again and again, and must not run out of its cache.
    caches.lengths[slots] = (seen + 1).clamp(max=caches.most_tokens)
    return torch.stack((chosen.int(), logprobs.view(torch.int32)))


PLAIN_ENDS: Final = DecodeEnds(_begin, _finish)


def fused_ends() -> DecodeEnds:
    """The same in one launch each. Raises ImportError where Triton is not installed."""
    from engine.kernels.decode_state import begin_decode, end_decode

    def begin(
        slots: Tensor, caches: SlotCaches, decoder: TextDecoder
    ) -> tuple[Tensor, Tensor, Tensor]:
        return begin_decode(
            slots,
            caches.lengths,
            caches.contexts,
            caches.tokens,
            decoder.embed_tokens.weight,
            decoder.embed_positions.weight,
        )

    def finish(
        slots: Tensor, seen: Tensor, chosen: Tensor, logprobs: Tensor, caches: SlotCaches
    ) -> Tensor:
        return end_decode(
            slots, seen, chosen, logprobs, caches.lengths, caches.tokens, caches.most_tokens
        )

    return DecodeEnds(begin, finish)
