"""The kernels against their plain twin and against `MelWindow`, on windows of few blocks."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.audio.units import MAX_WINDOW_FRAMES, MAX_WINDOW_SAMPLES
from engine.kernels import log_mel, plain_log_mel
from engine.kernels.plain_log_mel import (
    MAX_BLOCKS,
    MelTables,
    num_blocks,
    num_final_blocks,
    num_window_frames,
)
from engine.model.mel import LogMel, MelWindow, mel_filters

CPU = torch.device("cpu")
NUM_MELS = 80


def speech_like(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Loud and quiet stretches over 80 dB, so that the clamp matters."""
    generator = np.random.default_rng(seed)
    level = np.repeat(10.0 ** generator.uniform(-4, 0, count // 800 + 1), 800)[:count]
    tone = np.sin(np.arange(count) * 0.07)
    samples = 0.3 * level * (tone + generator.standard_normal(count))
    return np.asarray(samples, dtype=np.float32)


class Windows:
    """Slots of audio, with what an earlier use left behind in all of their tensors."""

    def __init__(self, num_slots: int, num_mels: int = NUM_MELS) -> None:
        self.tables = MelTables.build(mel_filters(num_mels), CPU)
        self.audio = torch.full((num_slots, MAX_WINDOW_SAMPLES), 0.7)
        self.frames = torch.full((num_slots, MAX_WINDOW_FRAMES, num_mels), 1e9)
        self.block_peaks = torch.full((num_slots, MAX_BLOCKS), 1e9)
        self.counts = torch.zeros(num_slots, dtype=torch.int64)

    def hold(self, slot: int, samples: NDArray[np.float32]) -> None:
        self.audio[slot, : len(samples)] = torch.from_numpy(samples)
        self.counts[slot] = len(samples)

    def update(self, slots: list[int], firsts: list[int], most_blocks: int) -> None:
        at = torch.tensor(slots, dtype=torch.int64)
        log_mel.update_log_mel(
            self.audio,
            self.counts[at],
            torch.tensor(firsts, dtype=torch.int64),
            at,
            self.frames,
            self.block_peaks,
            self.tables,
            most_blocks=most_blocks,
        )

    def append(self, slot: int, samples: NDArray[np.float32]) -> None:
        """Make `samples` the whole window of `slot`, computing what that changes."""
        first = num_final_blocks(int(self.counts[slot]))
        self.hold(slot, samples)
        self.update([slot], [first], num_blocks(len(samples)) - first)

    def features(self, slots: list[int], num_frames: int) -> Tensor:
        at = torch.tensor(slots)
        return log_mel.mel_features(
            self.frames, self.block_peaks, self.counts[at], at, num_frames, torch.float32
        )


def log_power(samples: NDArray[np.float32], num_mels: int) -> NDArray[np.float32]:
    """Unclamped, of the frames that the window has, by the numpy twin."""
    frames = np.zeros((MAX_WINDOW_FRAMES, num_mels), dtype=np.float32)
    MelWindow(LogMel(num_mels), frames).update(samples)
    return frames[: num_window_frames(len(samples))]


@pytest.mark.parametrize("num_mels", [80, 128])
def test_short_windows_have_the_log_power_of_one_window_alone(num_mels: int) -> None:
    """Of any length, in any slots, more blocks being asked for than most of them have."""
    lengths = (0, 1, 150, 4_001)
    windows, slots = Windows(len(lengths) + 1, num_mels), list(range(1, len(lengths) + 1))[::-1]
    for slot, count in zip(slots, lengths, strict=True):
        windows.hold(slot, speech_like(count, seed=count))
    windows.update(slots, [0] * len(slots), num_blocks(max(lengths)))
    for slot, count in zip(slots, lengths, strict=True):
        expected = log_power(speech_like(count, seed=count), num_mels)
        known = windows.frames[slot, : len(expected)]
        np.testing.assert_allclose(known.numpy(), expected, rtol=0, atol=1e-5)
        assert bool((windows.frames[slot, len(expected) :] == 1e9).all())
        peaks = windows.block_peaks[slot, : num_blocks(count)]
        blocks = torch.split(known, plain_log_mel.BLOCK_FRAMES)
        assert peaks.tolist() == [float(block.max()) for block in blocks]
    assert bool((windows.frames[0] == 1e9).all())


@pytest.mark.parametrize("count", [MAX_WINDOW_SAMPLES, 479_801])
def test_the_end_of_a_full_window_is_reflected(count: int) -> None:
    samples = speech_like(count)
    windows = Windows(1)
    windows.hold(0, samples)
    windows.update([0], [MAX_BLOCKS - 2], 2)
    expected = log_power(samples, NUM_MELS)[-20:]
    np.testing.assert_allclose(windows.frames[0, -20:].numpy(), expected, rtol=0, atol=1e-5)


def test_silence_is_exactly_the_floor() -> None:
    windows = Windows(1)
    windows.append(0, np.zeros(2_000, dtype=np.float32))
    assert bool((windows.frames[0, : num_window_frames(2_000)] == -10).all())
    assert bool((windows.features([0], 40) == -1.5).all())


def test_appended_audio_gives_bit_for_bit_what_the_whole_gives() -> None:
    samples = speech_like(4_300, seed=1)
    growing, whole = Windows(2), Windows(1)
    for end in (2_599, 2_601, 4_300):
        growing.append(1, samples[:end])
    whole.append(0, samples)
    torch.testing.assert_close(growing.features([1], 80), whole.features([0], 80), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("num_frames", [1, 77, 128])
def test_features_are_those_of_the_plain_twin(num_frames: int, dtype: torch.dtype) -> None:
    """Bit for bit, of the same frames: windows longer and shorter than what is asked for."""
    windows, counts = Windows(4), (0, 300, 11_000, 26_000)
    generator = torch.Generator().manual_seed(0)
    for slot, count in enumerate(counts):
        windows.counts[slot] = count
        known = num_window_frames(count)
        levels = torch.rand(known, NUM_MELS, generator=generator) * 14 - 10
        windows.frames[slot, :known] = levels
        for block, values in enumerate(torch.split(levels, plain_log_mel.BLOCK_FRAMES)):
            windows.block_peaks[slot, block] = values.max()
    slots = torch.tensor([2, 0, 3, 1])
    given = (windows.frames, windows.block_peaks, windows.counts[slots], slots, num_frames, dtype)
    features = log_mel.mel_features(*given)
    assert features.is_contiguous()
    torch.testing.assert_close(features, plain_log_mel.mel_features(*given), rtol=0, atol=0)


def test_no_rows_and_no_blocks_are_no_work() -> None:
    windows = Windows(1)
    windows.update([0], [0], 0)
    windows.update([], [], 3)
    assert bool((windows.frames == 1e9).all())
    none = torch.empty(0, dtype=torch.int64)
    features = log_mel.mel_features(
        windows.frames, windows.block_peaks, none, none, 5, torch.float32
    )
    assert features.shape == (0, NUM_MELS, 5)
