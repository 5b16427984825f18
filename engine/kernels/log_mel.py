"""Log-mel features of growing windows, for a batch of slots, in two kernels.

A program of the first kernel transforms one block of 16 frames as matrix products in float64: a
float32 transform is off by more than 1e-4 in the quiet bins that Whisper's range of eight decades
still shows. Equal windows and cosines are folded, which halves the work; the mel filters only add
positive numbers and need no more than float32. The second kernel clamps, scales and transposes.

The plain twin is `engine.kernels.plain_log_mel`.
"""

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.audio.units import (
    FFT_SAMPLES,
    HOP_SAMPLES,
    MAX_WINDOW_FRAMES,
    MAX_WINDOW_SAMPLES,
)
from engine.kernels.checks import check_contiguous
from engine.kernels.plain_log_mel import (
    BLOCK_FRAMES,
    FLOOR,
    HALF_SAMPLES,
    RANGE,
    SILENCE,
    TABLE_BINS,
    TABLE_TERMS,
    MelTables,
)

_TILE_TERMS: Final = 16
_TILE_BINS: Final = 64
_TILE_FRAMES: Final = 64
_LOG10_OF_E: Final = 0.4342944819032518


def update_log_mel(
    audio: Tensor,
    counts: Tensor,
    firsts: Tensor,
    slots: Tensor,
    frames: Tensor,
    block_peaks: Tensor,
    tables: MelTables,
    *,
    most_blocks: int,
) -> None:
    """Bring the log power of each row's window up to its samples.

    `slots`, `counts` and `firsts` are [rows] int64: the window of a row is the first `counts`
    samples of its slot in `audio` [slots, MAX_WINDOW_SAMPLES] float32, whatever lies behind them,
    and its blocks from `firsts` on are computed, `most_blocks` at most. Written in place: `frames`
    [slots, MAX_WINDOW_FRAMES, n_mels] float32, unclamped log10 power, and `block_peaks`
    [slots, MAX_BLOCKS] float32, the maximum over the frames of each block that the window has.
    Only frames that the window has are written.

    All are contiguous but for the slots of `audio`, `frames` and `block_peaks`. A frame's result
    depends on its samples alone, bit for bit.
    """
    check_contiguous(counts, firsts, slots, audio, frames, block_peaks)
    if most_blocks == 0 or len(slots) == 0:
        return
    _transform_block[(most_blocks, len(slots))](
        audio,
        audio.stride(0),
        counts,
        firsts,
        slots,
        frames,
        frames.stride(0),
        block_peaks,
        block_peaks.stride(0),
        tables.cosines,
        tables.sines,
        tables.padded_filters,
        tables.num_mels,
        FLOOR,
        SILENCE,
        _LOG10_OF_E,
        MAX_SAMPLES=MAX_WINDOW_SAMPLES,
        MAX_FRAMES=MAX_WINDOW_FRAMES,
        FFT=FFT_SAMPLES,
        HALF=HALF_SAMPLES,
        HOP=HOP_SAMPLES,
        FRAMES=BLOCK_FRAMES,
        TERMS=TABLE_TERMS,
        BINS=TABLE_BINS,
        MELS=tables.padded_filters.shape[1],
        TILE_TERMS=_TILE_TERMS,
        TILE_BINS=_TILE_BINS,
        num_warps=8,
        num_stages=2,  # with three, registers spill where float64 has no tensor cores (sm_89)
    )


def mel_features(
    frames: Tensor,
    block_peaks: Tensor,
    counts: Tensor,
    slots: Tensor,
    num_frames: int,
    dtype: torch.dtype,
) -> Tensor:
    """Whisper's input features of each row [rows, n_mels, num_frames], clamped and scaled.

    `num_frames` is MAX_WINDOW_FRAMES at most, `dtype` any float type.
    `frames` and `block_peaks` are what `update_log_mel` wrote for windows of `counts` samples in
    `slots` (both [rows] int64). Frames behind a window are silence. The maximum is the whole
    window's, so the first frames are the same however many are asked for.
    """
    check_contiguous(counts, slots, frames, block_peaks)
    num_mels = frames.shape[2]
    features = torch.empty(len(slots), num_mels, num_frames, dtype=dtype, device=frames.device)
    if len(slots) == 0:
        return features
    _clamp_and_scale[(triton.cdiv(num_frames, _TILE_FRAMES), len(slots))](
        frames,
        frames.stride(0),
        block_peaks,
        block_peaks.stride(0),
        counts,
        slots,
        features,
        num_mels,
        num_frames,
        SILENCE,
        RANGE,
        MAX_FRAMES=MAX_WINDOW_FRAMES,
        HALF=HALF_SAMPLES,
        HOP=HOP_SAMPLES,
        BLOCK=BLOCK_FRAMES,
        BLOCKS=triton.next_power_of_2(block_peaks.shape[1]),
        MELS=triton.next_power_of_2(num_mels),
        TILE_FRAMES=_TILE_FRAMES,
        num_warps=4,
    )
    return features


@triton.jit
def _window_frames(count, MAX_FRAMES: tl.constexpr, HALF: tl.constexpr, HOP: tl.constexpr):
    """Frames of a window of `count` samples; the count is not negative."""
    return tl.minimum((count + HALF + HOP - 1) // HOP, MAX_FRAMES).to(tl.int32)


@triton.jit
def _load_samples(samples, at, count, MAX_SAMPLES: tl.constexpr):
    """Samples at places of the 30 s window, which is reflected at both of its ends. float64."""
    at = tl.where(at < 0, -at, at)
    at = tl.where(at < MAX_SAMPLES, at, 2 * (MAX_SAMPLES - 1) - at)
    return tl.load(samples + at, mask=at < count, other=0.0).to(tl.float64)


@triton.jit(do_not_specialize_on_alignment=["counts", "firsts", "slots"])
def _transform_block(
    audio,  # [slots, MAX_SAMPLES] float32
    audio_slot_stride,
    counts,  # [rows] int64
    firsts,  # [rows] int64
    slots,  # [rows] int64
    frames,  # [slots, MAX_FRAMES, mels] float32
    frames_slot_stride,
    block_peaks,  # [slots, blocks] float32
    peaks_slot_stride,
    cosines,  # [TERMS, BINS] float64
    sines,  # [TERMS, BINS] float64
    filters,  # [BINS, MELS] float32
    num_mels,
    floor,
    silence,
    log10_of_e,
    MAX_SAMPLES: tl.constexpr,
    MAX_FRAMES: tl.constexpr,
    FFT: tl.constexpr,
    HALF: tl.constexpr,
    HOP: tl.constexpr,
    FRAMES: tl.constexpr,
    TERMS: tl.constexpr,
    BINS: tl.constexpr,
    MELS: tl.constexpr,
    TILE_TERMS: tl.constexpr,
    TILE_BINS: tl.constexpr,
):
    row = tl.program_id(1)
    slot = tl.load(slots + row)
    count = tl.load(counts + row).to(tl.int32)
    block = (tl.load(firsts + row) + tl.program_id(0)).to(tl.int32)
    num_frames = _window_frames(count, MAX_FRAMES, HALF, HOP)
    if block * FRAMES >= num_frames:
        return

    frame = block * FRAMES + tl.arange(0, FRAMES)
    samples = audio + slot * audio_slot_stride
    begin = frame[:, None] * HOP - HALF
    mel = tl.arange(0, MELS)
    levels = tl.zeros((FRAMES, MELS), dtype=tl.float32)
    for first_bin in range(0, BINS, TILE_BINS):
        bins = first_bin + tl.arange(0, TILE_BINS)
        real = tl.zeros((FRAMES, TILE_BINS), dtype=tl.float64)
        imaginary = tl.zeros((FRAMES, TILE_BINS), dtype=tl.float64)
        for first_term in range(0, TERMS, TILE_TERMS):
            term = first_term + tl.arange(0, TILE_TERMS)
            # Behind HALF terms the tables are zero; the samples there are real ones all the same.
            left = _load_samples(samples, begin + (term + 1)[None, :], count, MAX_SAMPLES)
            right = _load_samples(samples, begin + (FFT - 1 - term)[None, :], count, MAX_SAMPLES)
            at = term[:, None] * BINS + bins[None, :]
            real = tl.dot(
                left + right,
                tl.load(cosines + at),
                real,
                input_precision="ieee",
                out_dtype=tl.float64,
            )
            imaginary = tl.dot(
                left - right,
                tl.load(sines + at),
                imaginary,
                input_precision="ieee",
                out_dtype=tl.float64,
            )
        power = (real * real + imaginary * imaginary).to(tl.float32)
        weights = tl.load(filters + bins[:, None] * MELS + mel[None, :])
        levels = tl.dot(power, weights, levels, input_precision="ieee")

    # Silence is the same number here as behind a window.
    logarithms = tl.log(tl.maximum(levels, floor)) * log10_of_e
    levels = tl.where(levels > floor, logarithms, silence)
    known = (frame < num_frames)[:, None] & (mel < num_mels)[None, :]
    at = frame[:, None] * num_mels + mel[None, :]
    tl.store(frames + slot * frames_slot_stride + at, levels, mask=known)
    peak = tl.max(tl.max(tl.where(known, levels, float("-inf")), axis=1), axis=0)
    tl.store(block_peaks + slot * peaks_slot_stride + block, peak)


@triton.jit(do_not_specialize_on_alignment=["counts", "slots"])
def _clamp_and_scale(
    frames,  # [slots, MAX_FRAMES, mels] float32
    frames_slot_stride,
    block_peaks,  # [slots, blocks] float32
    peaks_slot_stride,
    counts,  # [rows] int64
    slots,  # [rows] int64
    features,  # [rows, mels, num_frames]
    num_mels,
    num_frames,
    silence,
    decades,
    MAX_FRAMES: tl.constexpr,
    HALF: tl.constexpr,
    HOP: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    MELS: tl.constexpr,
    TILE_FRAMES: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    slot = tl.load(slots + row)
    window_frames = _window_frames(tl.load(counts + row), MAX_FRAMES, HALF, HOP)
    block = tl.arange(0, BLOCKS)
    peaks = tl.load(
        block_peaks + slot * peaks_slot_stride + block,
        mask=block * BLOCK < window_frames,
        other=silence,
    )
    least = tl.maximum(tl.max(peaks, axis=0), silence) - decades

    frame = tl.program_id(0) * TILE_FRAMES + tl.arange(0, TILE_FRAMES)
    mel = tl.arange(0, MELS)
    real_mel = mel < num_mels
    levels = tl.load(
        frames + slot * frames_slot_stride + frame[:, None] * num_mels + mel[None, :],
        mask=(frame < window_frames)[:, None] & real_mel[None, :],
        other=silence,
    )
    levels = tl.trans((tl.maximum(levels, least) + 4.0) * 0.25)
    tl.store(
        features + row * num_mels * num_frames + mel[:, None] * num_frames + frame[None, :],
        levels.to(features.dtype.element_ty),
        mask=real_mel[:, None] & (frame < num_frames)[None, :],
    )
