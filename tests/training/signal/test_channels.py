import pytest
import torch
from torch import Tensor

from engine.audio.units import SAMPLE_RATE
from training.signal import channels


@pytest.fixture
def voices() -> Tensor:
    """Two rows: 200 Hz with overtones that come and go, 1.5 s."""
    time: Tensor = torch.arange(24_000) / SAMPLE_RATE
    overtones: Tensor = torch.arange(1, 20)[:, None]
    rows = [
        (torch.sin(2 * torch.pi * hertz * overtones * time) / overtones).sum(dim=0)
        for hertz in (200, 320)
    ]
    voices: Tensor = 0.2 * torch.stack(rows) * (torch.sin(20 * time) > 0)
    return voices


def energy(waves: Tensor, low: float, high: float) -> Tensor:
    spectrum = torch.fft.rfft(waves).abs().square()
    hertz = torch.fft.rfftfreq(waves.shape[1], 1 / SAMPLE_RATE)
    inside: Tensor = spectrum[:, (hertz >= low) & (hertz < high)].sum(dim=1)
    return inside


def test_a_room_adds_a_tail_and_keeps_what_comes_straight() -> None:
    torch.manual_seed(0)
    click = torch.zeros(2, 16_000)
    click[:, 100] = 1.0
    heard = channels.reverberate(click, torch.tensor([0.1, 0.7]), torch.tensor([0.3, 0.3]))
    assert heard[:, 100].tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
    late = heard[:, 3_000:].norm(dim=1)
    assert late[1] > 100 * late[0]


def test_a_narrow_band_loses_what_lies_outside(voices: Tensor) -> None:
    low, high = torch.tensor([300.0, 0.0]), torch.tensor([3_400.0, 8_000.0])
    limited = channels.limit_band(voices, low, high)
    assert energy(limited, 0, 150)[0] < 1e-3 * energy(voices, 0, 150)[0] + 1e-3
    assert energy(limited, 3_600, 8_000)[0] < 1e-3 * energy(voices, 3_600, 8_000)[0]
    inside = energy(limited, 500, 3_000) / energy(voices, 500, 3_000)
    assert inside.tolist() == pytest.approx([1.0, 1.0], abs=0.02)


def test_mu_law_has_255_levels_and_stays_close(voices: Tensor) -> None:
    coded = channels.mu_law(voices)
    assert len(set(coded.flatten().tolist())) <= 255
    assert (coded - voices).abs().max() < 0.03
    assert torch.equal(channels.mu_law(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_fewer_bits_are_further_from_the_voice(voices: Tensor) -> None:
    good = channels.low_bit_rate(voices, torch.tensor([30.0, 30.0]))
    poor = channels.low_bit_rate(voices, torch.tensor([8.0, 8.0]))
    assert good.shape == voices.shape
    error = [(coded - voices).norm() / voices.norm() for coded in (good, poor)]
    assert 0.02 < error[0] < error[1] < 0.9
