import numpy as np
import pytest
import torch

from engine.audio.units import MAX_WINDOW_FRAMES
from engine.model.mel import LogMel, MelWindow
from training.signal.features import LogMelFeatures, warp

CPU = torch.device("cpu")


def engine_features(wave: np.ndarray, frames: int) -> np.ndarray:
    window = MelWindow(LogMel(80), np.zeros((MAX_WINDOW_FRAMES, 80), np.float32))
    window.update(wave)
    return window.features(frames)


def test_features_are_the_engines(tmp_path: object) -> None:
    rng = np.random.default_rng(1)
    waves = (0.1 * rng.standard_normal((2, 32_000))).astype(np.float32)
    waves[1, 20_000:] = 0
    ours = LogMelFeatures(80, CPU).features(
        torch.from_numpy(waves), torch.tensor([32_000, 20_000]), augment=False
    )
    assert ours.shape == (2, 80, 200)
    for row, length in ((0, 32_000), (1, 20_000)):
        theirs = engine_features(waves[row, :length], 200)
        assert ours[row].T.numpy() == pytest.approx(theirs, abs=2e-3)


def test_a_shorter_tract_moves_a_tone_up() -> None:
    power = np.zeros(201)
    power[40] = 1.0
    for tract in (0.82, 1.0, 1.19):
        moved = power @ warp(tract)
        assert moved.sum() == pytest.approx(1.0)
        assert moved @ np.arange(201) == pytest.approx(40 * tract)


@pytest.mark.parametrize("tract", [0.82, 1.19])
def test_the_whole_band_stays_within_itself(tract: float) -> None:
    matrix = warp(tract)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(201))
    assert matrix[200, 200] == pytest.approx(1.0)
    assert matrix[0, 0] == pytest.approx(1.0)


def test_augmented_features_differ_and_some_are_masked() -> None:
    torch.manual_seed(0)
    wave = 0.1 * torch.randn(1, 32_000)
    waves = wave.expand(16, -1)
    lengths = torch.full((16,), 32_000)
    features = LogMelFeatures(80, CPU).features(waves, lengths)
    plain = LogMelFeatures(80, CPU).features(waves, lengths, augment=False)
    assert torch.isfinite(features).all()
    changed = [not torch.equal(a, b) for a, b in zip(features, plain, strict=True)]
    assert sum(changed) > 8
    masked_bins = (features.std(dim=2) < 1e-6).any(dim=1)
    masked_frames = (features.std(dim=1) < 1e-6).any(dim=1)
    assert 1 <= masked_bins.sum() < 16
    assert 1 <= masked_frames.sum() < 16
