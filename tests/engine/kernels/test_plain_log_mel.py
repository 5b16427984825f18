"""Windows of many slots at once against `MelWindow`, one window at a time."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.audio.units import FFT_SAMPLES, MAX_WINDOW_FRAMES, MAX_WINDOW_SAMPLES
from engine.kernels.plain_log_mel import (
    BLOCK_FRAMES,
    HALF_SAMPLES,
    MAX_BLOCKS,
    MelTables,
    mel_features,
    num_blocks,
    num_final_blocks,
    num_window_frames,
    update_log_mel,
)
from engine.model.mel import LogMel, MelWindow, mel_filters

CPU = torch.device("cpu")
NUM_MELS = 80
LENGTHS = (0, 1, 100, 201, 400, 5_000, 77_777, 479_999, 480_000)


def speech_like(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Loud and quiet stretches over many decades, so that the clamp matters."""
    generator = np.random.default_rng(seed)
    level = np.repeat(10.0 ** generator.uniform(-4, 0, count // 1600 + 1), 1600)[:count]
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

    def append(self, slots: list[int], samples: list[NDArray[np.float32]]) -> None:
        """Make `samples` the whole windows of `slots`, computing what that changes."""
        firsts = torch.tensor([num_final_blocks(int(self.counts[slot])) for slot in slots])
        for slot, window in zip(slots, samples, strict=True):
            self.audio[slot, : len(window)] = torch.from_numpy(window)
            self.counts[slot] = len(window)
        most = max(
            num_blocks(len(window)) - int(first)
            for window, first in zip(samples, firsts, strict=True)
        )
        at = torch.tensor(slots)
        update_log_mel(
            self.audio,
            self.counts[at],
            firsts,
            at,
            self.frames,
            self.block_peaks,
            self.tables,
            most_blocks=most,
        )

    def features(self, slots: list[int], num_frames: int) -> Tensor:
        at = torch.tensor(slots)
        return mel_features(
            self.frames, self.block_peaks, self.counts[at], at, num_frames, torch.float32
        )


def reference(samples: NDArray[np.float32], num_mels: int = NUM_MELS) -> MelWindow:
    window = MelWindow(LogMel(num_mels), np.zeros((MAX_WINDOW_FRAMES, num_mels), dtype=np.float32))
    window.update(samples)
    return window


def test_the_folded_tables_give_the_windowed_transform_of_a_frame() -> None:
    tables = MelTables.build(mel_filters(NUM_MELS), CPU)
    frame = np.random.default_rng(0).standard_normal(FFT_SAMPLES)
    left, right = frame[1 : HALF_SAMPLES + 1], frame[: HALF_SAMPLES - 1 : -1]
    real = (left + right) @ tables.cosines.numpy()[:HALF_SAMPLES]
    imaginary = (left - right) @ tables.sines.numpy()[:HALF_SAMPLES]
    expected = np.fft.rfft(frame * tables.hann.numpy())
    num_bins = HALF_SAMPLES + 1
    np.testing.assert_allclose(real[:num_bins], expected.real, atol=1e-12)
    np.testing.assert_allclose(imaginary[:num_bins], -expected.imag, atol=1e-12)
    assert not tables.cosines[HALF_SAMPLES:].any()
    assert not tables.sines[:, num_bins:].any()


def test_filters_of_another_transform_are_refused() -> None:
    with pytest.raises(ValueError, match="filters are of 201 bins, got 257"):
        MelTables.build(np.zeros((257, 80)), CPU)


@pytest.mark.parametrize("num_mels", [80, 128])
def test_windows_of_any_length_have_the_features_of_one_window_alone(num_mels: int) -> None:
    windows, slots = Windows(len(LENGTHS) + 1, num_mels), list(range(1, len(LENGTHS) + 1))
    samples = [speech_like(count, seed=count) for count in LENGTHS]
    windows.append(slots, samples)
    features = windows.features(slots, MAX_WINDOW_FRAMES)
    for window, feature in zip(samples, features, strict=True):
        expected = reference(window, num_mels).features(MAX_WINDOW_FRAMES)
        np.testing.assert_allclose(feature.numpy().T, expected, rtol=0, atol=1e-6)
    assert bool((windows.frames[0] == 1e9).all())


def test_appended_audio_gives_bit_for_bit_what_the_whole_gives() -> None:
    """Two windows that grow together, in other steps than those of a third that does not."""
    samples = [speech_like(30_011, seed=1), speech_like(26_000, seed=2)]
    steps = ((0, 1), (159, 2_599), (2_600, 2_600), (2_601, 9_000), (20_000, 25_999))
    growing, whole = Windows(3), Windows(3)
    for ends in (*steps, (30_011, 26_000)):
        growing.append([2, 0], [s[:end] for s, end in zip(samples, ends, strict=True)])
    whole.append([2], [samples[0]])
    whole.append([0], [samples[1]])
    for num_frames in (MAX_WINDOW_FRAMES, 177, 1):
        torch.testing.assert_close(
            growing.features([0, 2], num_frames),
            whole.features([0, 2], num_frames),
            rtol=0,
            atol=0,
        )


@pytest.mark.parametrize("beyond", [-1, 0, 1, 159, 160, 199, 200, 201, 202])
def test_a_block_is_final_only_once_all_it_covers_is_there(beyond: int) -> None:
    samples = speech_like(9_000)
    growing, whole = Windows(1), Windows(1)
    last_frame = 2 * BLOCK_FRAMES - 1
    growing.append([0], [samples[: last_frame * 160 + beyond]])
    growing.append([0], [samples])
    whole.append([0], [samples])
    torch.testing.assert_close(growing.features([0], 100), whole.features([0], 100), rtol=0, atol=0)


def test_final_blocks_are_those_whose_frames_no_later_sample_changes() -> None:
    assert [num_final_blocks(count) for count in (0, 200, 2_600, 2_601)] == [0, 0, 0, 1]
    assert num_final_blocks(MAX_WINDOW_SAMPLES) == MAX_BLOCKS - 1  # the last one is reflected
    for count in (0, 1, 2_600, 2_601, 77_777, MAX_WINDOW_SAMPLES):
        assert num_final_blocks(count) < num_blocks(count) <= MAX_BLOCKS


@pytest.mark.parametrize("count", LENGTHS)
def test_features_are_clamped_by_the_whole_window_however_many_are_asked_for(count: int) -> None:
    windows = Windows(1)
    windows.append([0], [speech_like(count)])
    whole = windows.features([0], MAX_WINDOW_FRAMES)
    for num_frames in (1, 128, 2_999):
        part = windows.features([0], num_frames)
        torch.testing.assert_close(part, whole[:, :, :num_frames], rtol=0, atol=0)


def test_the_peak_of_a_block_is_that_of_the_frames_its_window_has() -> None:
    windows, count = Windows(1), 7_000
    windows.append([0], [speech_like(count)])
    for block in range(num_blocks(count)):
        end = min((block + 1) * BLOCK_FRAMES, num_window_frames(count))
        known = windows.frames[0, block * BLOCK_FRAMES : end]
        assert float(windows.block_peaks[0, block]) == float(known.max())
    assert bool((windows.frames[0, num_window_frames(count) :] == 1e9).all())


def test_features_are_rounded_to_the_type_that_is_asked_for() -> None:
    windows = Windows(1)
    windows.append([0], [speech_like(5_000)])
    slots = torch.tensor([0])
    half = mel_features(
        windows.frames, windows.block_peaks, windows.counts, slots, 50, torch.float16
    )
    torch.testing.assert_close(half, windows.features([0], 50).half(), rtol=0, atol=0)
