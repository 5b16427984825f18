"""The two ends of a decode step: what it takes from the slots' state, and what it leaves there.

Its plain twins are a dozen small torch operations in `engine.runtime.programs`; at a batch of one
each of them costs as much as a layer norm.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.checks import check_contiguous

_TILE_STATE = 1024


def begin_decode(
    slots: Tensor,
    lengths: Tensor,
    contexts: Tensor,
    tokens: Tensor,
    embed_tokens: Tensor,
    embed_positions: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Embed the last token of each of `slots` [rows] int64.

    `lengths` and `contexts` [slots] int64, `tokens` [slots, room] int64; the embeddings are
    [n_vocab, state] and [n_text_ctx, state]. Returns the embedded tokens [rows, state], and
    lengths and contexts of the rows [rows] int64.
    """
    check_contiguous(slots, lengths, contexts, tokens, embed_tokens, embed_positions)
    rows, state = len(slots), embed_tokens.shape[1]
    hidden = torch.empty(rows, state, dtype=embed_tokens.dtype, device=slots.device)
    seen, reach = torch.empty_like(slots), torch.empty_like(slots)
    _begin_decode[(rows, triton.cdiv(state, _TILE_STATE))](
        slots,
        lengths,
        contexts,
        tokens,
        tokens.stride(0),
        embed_tokens,
        embed_tokens.stride(0),
        embed_positions,
        embed_positions.stride(0),
        hidden,
        seen,
        reach,
        state,
        TILE=_TILE_STATE,
    )
    return hidden, seen, reach


def end_decode(
    slots: Tensor,
    seen: Tensor,
    chosen: Tensor,
    logprobs: Tensor,
    lengths: Tensor,
    tokens: Tensor,
    most_tokens: int,
) -> Tensor:
    """Append `chosen` [rows] int64 to the tokens of `slots`, whose lengths were `seen` [rows].

    No length grows beyond `most_tokens`: the scratch row is decoded again and again. Returns
    tokens and the bits of `logprobs` [rows] float32, as [2, rows] int32.
    """
    check_contiguous(slots, seen, chosen, logprobs, lengths, tokens)
    rows = len(slots)
    results = torch.empty(2, rows, dtype=torch.int32, device=slots.device)
    _end_decode[(triton.cdiv(rows, 64),)](
        slots,
        seen,
        chosen,
        logprobs,
        lengths,
        tokens,
        tokens.stride(0),
        results,
        rows,
        most_tokens,
        TILE=64,
    )
    return results


@triton.jit
def _begin_decode(
    slots,
    lengths,
    contexts,
    tokens,
    tokens_slot,
    embed_tokens,
    tokens_stride,
    embed_positions,
    positions_stride,
    hidden,
    seen,
    reach,
    state,
    TILE: tl.constexpr,
):
    row = tl.program_id(0)
    tile = tl.program_id(1)
    slot = tl.load(slots + row)
    length = tl.load(lengths + slot)
    token = tl.load(tokens + slot * tokens_slot + length - 1)
    at = tile * TILE + tl.arange(0, TILE)
    inside = at < state
    word = tl.load(embed_tokens + token * tokens_stride + at, mask=inside, other=0.0)
    place = tl.load(embed_positions + (length - 1) * positions_stride + at, mask=inside, other=0.0)
    # As torch adds them: in float32, rounded once.
    total = word.to(tl.float32) + place.to(tl.float32)
    tl.store(hidden + row * state + at, total.to(hidden.dtype.element_ty), mask=inside)
    if tile == 0:
        tl.store(seen + row, length)
        tl.store(reach + row, tl.load(contexts + slot))


@triton.jit
def _end_decode(
    slots,
    seen,
    chosen,
    logprobs,
    lengths,
    tokens,
    tokens_slot,
    results,
    rows,
    most_tokens,
    TILE: tl.constexpr,
):
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = row < rows
    slot = tl.load(slots + row, mask=inside, other=0)
    length = tl.load(seen + row, mask=inside, other=0)
    token = tl.load(chosen + row, mask=inside, other=0)
    logprob = tl.load(logprobs + row, mask=inside, other=0.0)
    tl.store(tokens + slot * tokens_slot + length, token, mask=inside)
    tl.store(lengths + slot, tl.minimum(length + 1, most_tokens), mask=inside)
    tl.store(results + row, token.to(tl.int32), mask=inside)
    tl.store(results + rows + row, logprob.to(tl.int32, bitcast=True), mask=inside)
