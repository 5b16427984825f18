"""Features of windows on the device against `MelWindow`'s, whatever came before in a slot."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.audio.units import (
    MAX_WINDOW_FRAMES,
    MAX_WINDOW_SAMPLES,
    Positions,
)
from engine.kernels import plain_log_mel
from engine.model.mel import LogMel, MelWindow
from engine.runtime.features import SlotFeatures, feature_bytes
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import EncodeRow, ExtendRow

Window = NDArray[np.float32]

CPU = torch.device("cpu")
NUM_MELS = 80
SLOTS = 3


@lru_cache
def speech_like(count: int, seed: int = 0) -> Window:
    """Loud and quiet stretches, so that the clamp matters."""
    generator = np.random.default_rng(seed)
    level = np.repeat(10.0 ** generator.uniform(-3, 0, count // 800 + 1), 800)[:count]
    samples = (0.3 * level * generator.standard_normal(count)).astype(np.float32)
    samples.flags.writeable = False
    return samples


@lru_cache
def log_mel() -> LogMel:
    return LogMel(NUM_MELS)


def expected(samples: Window, num_frames: int) -> Window:
    frames = np.zeros((MAX_WINDOW_FRAMES, NUM_MELS), dtype=np.float32)
    window = MelWindow(log_mel(), frames)
    window.update(samples)
    return window.features(num_frames).T


def features_of(kernels: Any = plain_log_mel) -> SlotFeatures:
    return SlotFeatures(SLOTS, NUM_MELS, CPU, kernels)


def row(slot: int, samples: Window, generation: int = 1) -> EncodeRow:
    return EncodeRow(SlotHandle(slot, generation), samples)


def assert_features(
    features: SlotFeatures, rows: Sequence[EncodeRow | ExtendRow], num_frames: int
) -> None:
    computed = features.compute(rows, num_frames, torch.float32)
    assert computed.shape == (len(rows), NUM_MELS, num_frames)
    for one, its in zip(rows, computed.numpy(), strict=True):
        np.testing.assert_allclose(its, expected(one.samples, num_frames), rtol=0, atol=1e-5)


sizes = st.lists(st.integers(0, 9_000), min_size=1, max_size=6)


@settings(max_examples=25)
@given(sizes, st.integers(0, 9), st.integers(1, 400))
def test_windows_that_grow_in_any_steps_have_the_features_of_the_whole(
    steps: list[int], seed: int, num_frames: int
) -> None:
    features = features_of()
    samples = speech_like(sum(steps), seed)
    for end in np.cumsum(steps):
        assert_features(features, [row(1, samples[:end])], num_frames)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 20_000), min_size=2, max_size=6))
def test_a_window_may_be_asked_for_again_shorter_than_it_was(ends: list[int]) -> None:
    """A final of less than the last partial saw; then it may grow once more."""
    features = features_of()
    samples = speech_like(20_000, seed=4)
    for end in ends:
        assert_features(features, [row(0, samples[:end])], 130)


@settings(max_examples=20)
@given(st.lists(st.lists(st.integers(0, 6_000), min_size=3, max_size=3), min_size=1, max_size=4))
def test_rows_of_different_lengths_share_a_call(growths: list[list[int]]) -> None:
    """Each has grown by its own, some by nothing, in an order of slots that changes."""
    features = features_of()
    windows = [speech_like(24_000, seed) for seed in range(SLOTS)]
    ends = [0] * SLOTS
    for turn, growth in enumerate(growths):
        ends = [end + more for end, more in zip(ends, growth, strict=True)]
        order = [(turn + number) % SLOTS for number in range(SLOTS)]
        rows = [row(slot, windows[slot][: ends[slot]]) for slot in order]
        assert_features(features, rows, 160)


@pytest.mark.parametrize("count", [0, 300, 5_000, 16_000])
def test_the_next_use_of_a_slot_starts_anew(count: int) -> None:
    """Longer or shorter than the one before: nothing of that is heard."""
    features = features_of()
    assert_features(features, [row(1, speech_like(12_000, seed=1))], 200)
    other = speech_like(count, seed=2)
    assert_features(features, [row(1, other, generation=2)], 200)
    grown = speech_like(count + 3_000, seed=2)
    grown = np.concatenate((other, grown[count:]))
    assert_features(features, [row(1, grown, generation=2)], 200)


def test_slots_are_told_apart() -> None:
    features = features_of()
    first, second = (speech_like(8_000, seed) for seed in (1, 2))
    assert_features(features, [row(0, first)], 100)
    assert_features(features, [row(2, second)], 100)
    assert_features(features, [row(2, second), row(0, first)], 100)


def test_a_window_that_is_extended_is_the_same_window() -> None:
    features = features_of()
    samples = speech_like(12_000)
    assert_features(features, [row(0, samples[:8_000])], 128)
    extended = ExtendRow(SlotHandle(0, 1), samples, Positions(20))
    assert_features(features, [extended], 140)


def test_the_last_sample_of_thirty_seconds_is_heard() -> None:
    features = features_of()
    samples = speech_like(MAX_WINDOW_SAMPLES)
    assert_features(features, [row(0, samples[:-4_000])], MAX_WINDOW_FRAMES)
    assert_features(features, [row(0, samples), row(1, samples[:100])], MAX_WINDOW_FRAMES)


def test_a_window_of_more_than_thirty_seconds_is_refused_by_its_length() -> None:
    features = features_of()
    long = np.zeros(MAX_WINDOW_SAMPLES + 1, dtype=np.float32)
    with pytest.raises(ValueError, match="a window holds 480000 samples at most, got 480001"):
        features.compute([row(0, long)], 10, torch.float32)


def test_only_what_is_new_of_the_audio_is_sent_and_computed() -> None:
    """What the device has already may have changed on the host: it is not looked at again."""
    features = features_of()
    samples = speech_like(16_000)
    assert_features(features, [row(0, samples)], 160)
    changed = samples.copy()
    changed[:4_000] = 0.5
    computed = features.compute([row(0, changed)], 160, torch.float32)[0].numpy()
    np.testing.assert_allclose(computed, expected(samples, 160), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_come_in_the_model_s_format(dtype: torch.dtype) -> None:
    samples = speech_like(6_000)
    computed = features_of().compute([row(0, samples)], 64, dtype)
    assert computed.dtype is dtype
    assert computed.is_contiguous()
    exact = torch.from_numpy(expected(samples, 64)).to(dtype)
    torch.testing.assert_close(computed[0], exact, rtol=1e-2, atol=1e-2)


def test_the_kernels_of_a_gpu_interpreted_give_the_same() -> None:
    pytest.importorskip("triton")
    from engine.kernels import log_mel as kernels

    features = features_of(kernels)
    samples, other = speech_like(4_000, seed=1), speech_like(2_500, seed=2)
    for rows in ([row(0, samples[:2_000])], [row(2, other), row(0, samples)]):
        computed = features.compute(rows, 40, torch.float32).numpy()
        for one, its in zip(rows, computed, strict=True):
            np.testing.assert_allclose(its, expected(one.samples, 40), rtol=0, atol=1e-4)


def test_a_slot_s_audio_and_frames_cost_what_is_said() -> None:
    kinds = {name: value for name, value in vars(features_of()).items() if torch.is_tensor(value)}
    per_slot = sum(tensor.nbytes for tensor in kinds.values()) / SLOTS
    # The peaks of blocks and the sample for padding are the few bytes on top.
    assert feature_bytes(NUM_MELS) <= per_slot <= feature_bytes(NUM_MELS) + 1_000
