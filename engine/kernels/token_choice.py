"""Whisper's decoding rules, the choice of a token and its log-probability in one pass.

Two kernels. The first reads each logit once: a program rules one tile of the vocabulary for one
row and keeps its best score and the sum of its exponentials. The second puts a row's tiles
together. No tile holds both text and timestamps, because the last rule weighs one against the
other. How a row is cut into tiles does not depend on the batch, hence neither does its result.

The plain twin is `engine.runtime.sampling`, and `engine.kernels.noise` for draws.
"""

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.checks import check_contiguous

_TILE_IDS: Final = 2048  # 13 tiles of Whisper's vocabulary: one row fills some of the device too
_NUM_WARPS: Final = 8


def choose_tokens(
    logits: Tensor,
    tokens: Tensor,
    slots: Tensor,
    targets: Tensor,
    begins: Tensor,
    timestamps: Tensor,
    temperatures: Tensor,
    seeds: Tensor,
    suppressed: Tensor,
    suppressed_first: Tensor,
    *,
    eot: int,
    no_timestamps: int,
    timestamp_begin: int,
    max_initial_timestamp: int | None,
) -> tuple[Tensor, Tensor]:
    """Choose a token for each row by Whisper's rules, and tell its log-probability.

    A row predicts index `targets` of slot `slots` (both [rows] int64) from `logits`
    [rows, n_vocab] of any float type and any strides, which stay as they are. By slot: `tokens`
    [slots, n_text_ctx] int64 holds what was fed or chosen, `begins` [slots] int64 where sampling
    began, `timestamps` [slots] bool whether timestamp rules hold, `temperatures` [slots] float32
    and `seeds` [slots] int64 how to draw. `suppressed` and `suppressed_first` are [n_vocab] bool.
    All but `logits` and the slots of `tokens` are contiguous.

    At temperature zero the best token is chosen, the lowest id among equals; above it one is
    drawn with the noise of `engine.kernels.noise`. Returns ids [rows] int64 and log-probabilities
    [rows] float32 under the ruled distribution before tempering. The log-probability is NaN where
    a logit that is not ruled out is NaN or positive infinity, or where all are ruled out; the
    token is then some token.

    Rules: openai/whisper `decoding.py`, as `engine.runtime.sampling` has them. Nothing is read
    back to the host.
    """
    check_contiguous(slots, targets, begins, timestamps, temperatures, seeds)
    check_contiguous(tokens, suppressed, suppressed_first)
    num_rows, num_vocab = logits.shape
    chosen = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    if num_rows == 0:
        return chosen, logprobs
    num_text_tiles = triton.cdiv(timestamp_begin, _TILE_IDS)
    num_tiles = num_text_tiles + triton.cdiv(num_vocab - timestamp_begin, _TILE_IDS)
    parts = torch.empty(num_rows, 3, num_tiles, dtype=torch.float32, device=logits.device)
    best_ids = torch.empty(num_rows, num_tiles, dtype=torch.int32, device=logits.device)
    last_initial = num_vocab
    if max_initial_timestamp is not None:
        last_initial = timestamp_begin + max_initial_timestamp
    _rule_tile[(num_rows, num_tiles)](
        logits,
        logits.stride(0),
        logits.stride(1),
        tokens,
        tokens.stride(0),
        slots,
        targets,
        begins,
        timestamps.view(torch.uint8),
        temperatures,
        seeds,
        suppressed.view(torch.uint8),
        suppressed_first.view(torch.uint8),
        parts,
        best_ids,
        num_vocab,
        tokens.shape[1],
        num_text_tiles,
        num_tiles,
        eot,
        no_timestamps,
        timestamp_begin,
        last_initial,
        TILE_IDS=_TILE_IDS,
        CONTEXT=triton.next_power_of_2(tokens.shape[1]),
        num_warps=_NUM_WARPS,
    )
    _choose[(num_rows,)](
        logits,
        logits.stride(0),
        logits.stride(1),
        slots,
        timestamps.view(torch.uint8),
        parts,
        best_ids,
        chosen,
        logprobs,
        num_text_tiles,
        num_tiles,
        TILES=triton.next_power_of_2(num_tiles),
        num_warps=1,
    )
    return chosen, logprobs


@triton.jit
def _mix(x):
    """`lowbias32` of uint32."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def noise_bits(seed, target, ids):
    """Hash token `ids` for one row, as `engine.kernels.noise.noise_bits` does. Gives uint32."""
    key = _mix(seed.to(tl.uint32) + 0x9E3779B9)
    key = _mix(key + (seed >> 32).to(tl.uint32))
    key = _mix(key + target.to(tl.uint32))
    return _mix(_mix(ids.to(tl.uint32) + 0x9E3779B9) ^ key)


@triton.jit
def gumbel_noise(seed, target, ids):
    """Gumbel noise of token `ids` for one row, as `engine.kernels.noise.gumbel_noise` has it."""
    bits = noise_bits(seed, target, ids).to(tl.float32)
    uniform = tl.minimum(bits * (1.0 / 4294967296.0) + 1.0 / 8589934592.0, 1.0 - 1.0 / 16777216.0)
    small = uniform * (1.0 + uniform * (0.5 + uniform * (1.0 / 3.0)))
    return -tl.log(tl.where(uniform < 1.0 / 256.0, small, -tl.log(1.0 - uniform)))


@triton.jit
def _is_sampled_timestamp(tokens, at, begin, target, num_context, timestamp_begin):
    """Whether index `at` of one slot's `tokens` was sampled and holds a timestamp."""
    at = tl.maximum(at, 0)
    sampled = (at >= begin) & (at < target) & (at < num_context)
    return tl.load(tokens + at, mask=sampled, other=-1) >= timestamp_begin


@triton.jit
def _rule_tile(
    logits,  # [rows, n_vocab]
    logits_row_stride,
    logits_id_stride,
    tokens,  # [slots, n_text_ctx] int64
    tokens_slot_stride,
    slots,  # [rows] int64
    targets,  # [rows] int64
    begins,  # [slots] int64
    timestamps,  # [slots] uint8
    temperatures,  # [slots] float32
    seeds,  # [slots] int64
    suppressed,  # [n_vocab] uint8
    suppressed_first,  # [n_vocab] uint8
    parts,  # [rows, 3, tiles] float32: best score, greatest logit, sum of exponentials below it
    best_ids,  # [rows, tiles] int32
    num_vocab,
    num_context,
    num_text_tiles,
    num_tiles,
    eot,
    no_timestamps,
    timestamp_begin,
    last_initial,
    TILE_IDS: tl.constexpr,
    CONTEXT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    slot = tl.load(slots + row)
    target = tl.load(targets + row)
    begin = tl.load(begins + slot)
    ruled = tl.load(timestamps + slot) != 0
    first = target == begin

    holds_text = tile < num_text_tiles
    start = tl.where(holds_text, tile * TILE_IDS, timestamp_begin)
    start += tl.where(holds_text, 0, (tile - num_text_tiles) * TILE_IDS)
    end = tl.where(holds_text, timestamp_begin, num_vocab)
    ids = start + tl.arange(0, TILE_IDS)
    valid = ids < end

    row_logits = logits + row * logits_row_stride
    logit = tl.load(
        row_logits + ids.to(tl.int64) * logits_id_stride, mask=valid, other=float("-inf")
    )
    logit = logit.to(tl.float32)
    forbidden = tl.load(suppressed + ids, mask=valid, other=1) != 0
    forbidden |= tl.load(suppressed_first + ids, mask=valid & first, other=0) != 0

    slot_tokens = tokens + slot * tokens_slot_stride
    last = _is_sampled_timestamp(
        slot_tokens, target - 1, begin, target, num_context, timestamp_begin
    )
    before_last = _is_sampled_timestamp(
        slot_tokens, target - 2, begin, target, num_context, timestamp_begin
    )
    # With fewer than two tokens the one before last counts as a timestamp.
    before_last |= target - begin < 2
    if ruled:
        if holds_text:
            forbidden |= first | (ids == no_timestamps)
            forbidden |= last & (before_last == 0) & (ids < eot)
        else:
            index = tl.arange(0, CONTEXT)
            sampled = (index >= begin) & (index < target) & (index < num_context)
            history = tl.load(slot_tokens + index, mask=sampled, other=-1)
            latest = tl.max(history, axis=0)
            # Timestamps never decrease, and a closed span is not empty.
            least = latest + tl.where(last & (before_last == 0), 0, 1)
            forbidden |= last & before_last
            forbidden |= (latest >= timestamp_begin) & (ids < least)
            forbidden |= first & (ids > last_initial)
    logit = tl.where(forbidden, float("-inf"), logit)

    score = logit
    temperature = tl.load(temperatures + slot)
    if temperature > 0:
        noise = gumbel_noise(tl.load(seeds + slot), target, ids)
        score = tl.div_rn(logit, temperature) + noise
    # Reductions need not pass a NaN on: it is kept out of them, and wins with its tile's sum lost.
    broken = (logit != logit) | (logit == float("inf"))
    score = tl.where(broken, float("inf"), score)
    best = tl.max(score, axis=0)
    best_id = tl.min(tl.where(valid & (score == best), ids, num_vocab), axis=0)
    logit = tl.where(broken, float("-inf"), logit)
    greatest = tl.max(logit, axis=0)
    base = tl.where(greatest == float("-inf"), 0.0, greatest)
    total = tl.sum(tl.where(broken, float("nan"), tl.exp(logit - base)), axis=0)

    part = parts + row * 3 * num_tiles + tile
    tl.store(part, best)
    tl.store(part + num_tiles, greatest)
    tl.store(part + 2 * num_tiles, total)
    tl.store(best_ids + row * num_tiles + tile, best_id)


@triton.jit
def _choose(
    logits,  # [rows, n_vocab]
    logits_row_stride,
    logits_id_stride,
    slots,  # [rows] int64
    timestamps,  # [slots] uint8
    parts,  # [rows, 3, tiles] float32
    best_ids,  # [rows, tiles] int32
    chosen,  # [rows] int64
    logprobs,  # [rows] float32
    num_text_tiles,
    num_tiles,
    TILES: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    ruled = tl.load(timestamps + tl.load(slots + row)) != 0
    tile = tl.arange(0, TILES)
    valid = tile < num_tiles
    part = parts + row * 3 * num_tiles + tile
    score = tl.load(part, mask=valid, other=float("-inf"))
    greatest = tl.load(part + num_tiles, mask=valid, other=float("-inf"))
    total = tl.load(part + 2 * num_tiles, mask=valid, other=0.0)
    ids = tl.load(best_ids + row * num_tiles + tile, mask=valid, other=0)
    is_text = tile < num_text_tiles

    # Where timestamps together outweigh every other token, one of them is chosen. A sum that is
    # not a number outweighs nothing, and is outweighed by nothing.
    text_greatest = tl.max(tl.where(is_text, greatest, float("-inf")), axis=0)
    text_total = tl.sum(tl.where(is_text, total, 0.0), axis=0)
    base = tl.max(tl.where(is_text, float("-inf"), greatest), axis=0)
    base = tl.where(base == float("-inf"), 0.0, base)
    others = tl.sum(tl.where(is_text, 0.0, total * tl.exp(greatest - base)), axis=0)
    weight = base + tl.log(tl.where(others == 0.0, 1.0, others))
    forced = (others > 0.0) & (weight > text_greatest) & (text_total == text_total) & ruled

    allowed = valid & ((forced == 0) | (is_text == 0))
    best = tl.max(tl.where(allowed, score, float("-inf")), axis=0)
    # Tiles are in the order of their ids, so the lowest id wins here as it does within a tile.
    choice = tl.min(tl.where(allowed & (score == best), tile, TILES), axis=0)
    token = tl.sum(tl.where(tile == choice, ids, 0), axis=0).to(tl.int64)

    base = tl.max(tl.where(allowed, greatest, float("-inf")), axis=0)
    base = tl.where(base == float("-inf"), 0.0, base)
    total = tl.sum(tl.where(allowed, total * tl.exp(greatest - base), 0.0), axis=0)
    logit = tl.load(logits + row * logits_row_stride + token * logits_id_stride).to(tl.float32)
    logprob = (logit - base) - tl.log(tl.where(total > 0.0, total, 1.0))
    # Without any token that may be chosen the sum is zero; with a broken one it is not a number.
    logprob = tl.where(total > 0.0, logprob, float("nan"))
    tl.store(chosen + row, token)
    tl.store(logprobs + row, logprob)
