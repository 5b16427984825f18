import pytest
import torch

from training.signal.noises import noise_bank


def test_every_sound_is_as_loud_as_the_others_and_always_the_same() -> None:
    bank = noise_bank(torch.device("cpu"), seconds=4)
    assert bank.shape == (14, 4 * 16_000)
    assert bank.square().mean(dim=1).sqrt().tolist() == pytest.approx([1.0] * 14, abs=1e-3)
    assert torch.equal(bank, noise_bank(torch.device("cpu"), seconds=4))


def test_the_sounds_differ_in_where_their_energy_lies() -> None:
    bank = noise_bank(torch.device("cpu"), seconds=4)
    spectrum = torch.fft.rfft(bank).abs().square()
    quarter = spectrum.shape[1] // 4
    low = spectrum[:, :quarter].sum(dim=1) / spectrum.sum(dim=1)
    white, brown, hum = low[0], low[5], low[6]
    assert white == pytest.approx(0.25, abs=0.02)
    assert brown > 0.95
    assert hum > 0.9
