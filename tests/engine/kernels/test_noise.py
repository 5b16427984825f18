"""Noise out of a hash: repeatable, different where it should be, and distributed as promised."""

import math

import torch

from engine.kernels.noise import gumbel_noise, noise_bits

EULER_GAMMA = 0.577_215_664_901_532_9
NUM_VOCAB = 51_866


def lowbias32(x: int) -> int:
    """The hash in Python's own integers, which do not overflow."""
    x ^= x >> 16
    x = (x * 0x7FEB352D) % 2**32
    x ^= x >> 15
    x = (x * 0x846CA68B) % 2**32
    return x ^ (x >> 16)


def bits_of(seed: int, target: int, token: int) -> int:
    golden = 0x9E3779B9
    key = lowbias32((seed % 2**32 + golden) % 2**32)
    key = lowbias32((key + (seed >> 32) % 2**32) % 2**32)
    key = lowbias32((key + target) % 2**32)
    return lowbias32(lowbias32((token + golden) % 2**32) ^ key)


def noise(num_rows: int = 4) -> torch.Tensor:
    return gumbel_noise(torch.arange(num_rows), torch.arange(num_rows) + 3, NUM_VOCAB)


def correlation(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack((left.flatten(), right.flatten())).double())[0, 1])


def test_the_hash_is_that_of_unbounded_integers() -> None:
    seeds = (0, 1, 2**31, 2**32 - 1, 2**63 - 1, -1, -(2**63), 0x9E3779B9)
    targets = (0, 447, 4, 5, 6, 7, 8, 9)
    bits = noise_bits(torch.tensor(seeds), torch.tensor(targets), 50)
    expected = [
        [bits_of(seed, target, token) for token in range(50)]
        for seed, target in zip(seeds, targets, strict=True)
    ]
    assert bits.tolist() == expected


def test_noise_is_that_of_its_seed_and_target_whatever_rows_are_beside() -> None:
    seeds, targets = torch.tensor([5, 5, 6, 2**40 + 5]), torch.tensor([7, 8, 7, 7])
    together = gumbel_noise(seeds, targets, 200)
    for row in range(4):
        alone = gumbel_noise(seeds[row : row + 1], targets[row : row + 1], 100)
        torch.testing.assert_close(alone[0], together[row, :100], rtol=0, atol=0)
    assert len({tuple(row.tolist()) for row in together}) == 4


def test_noise_has_the_mean_variance_and_tail_of_a_gumbel_distribution() -> None:
    drawn = noise(20).double()
    assert bool(drawn.isfinite().all())
    deviation = math.pi / math.sqrt(6)
    error = deviation / math.sqrt(drawn.numel())
    assert abs(float(drawn.mean()) - EULER_GAMMA) < 4 * error
    assert abs(float(drawn.var()) - deviation**2) < 0.02
    for level in (-1.0, 0.0, 2.0, 6.0):
        share = math.exp(-math.exp(-level))
        spread = math.sqrt(share * (1 - share) / drawn.numel())
        assert abs(float((drawn <= level).double().mean()) - share) < 4 * spread


def test_every_bit_is_set_half_the_time() -> None:
    bits = noise_bits(torch.arange(4), torch.arange(4), NUM_VOCAB)
    shares = [float(((bits >> place) & 1).double().mean()) for place in range(32)]
    assert max(abs(share - 0.5) for share in shares) < 4 * 0.5 / math.sqrt(bits.numel())


def test_neighbours_are_not_correlated() -> None:
    """Neither tokens, nor targets, nor seeds that follow each other."""
    drawn = noise()
    limit = 4 / math.sqrt(drawn.numel())
    assert abs(correlation(drawn[:, :-1], drawn[:, 1:])) < limit
    seeds, targets = torch.arange(4), torch.full((4,), 9)
    of_seeds = gumbel_noise(seeds, targets, NUM_VOCAB)
    assert abs(correlation(of_seeds, gumbel_noise(seeds + 4, targets, NUM_VOCAB))) < limit
    assert abs(correlation(of_seeds, gumbel_noise(seeds, targets + 1, NUM_VOCAB))) < limit
    assert abs(correlation(of_seeds, gumbel_noise(seeds + 2**32, targets, NUM_VOCAB))) < limit


def test_the_greatest_sum_is_a_draw_from_the_softmax() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, -6.0])
    num_draws = 40_000
    seeds = torch.arange(num_draws) * 7919
    drawn = (logits / 0.8 + gumbel_noise(seeds, seeds % 400, 5)).argmax(dim=-1)
    shares = torch.bincount(drawn, minlength=5).double() / num_draws
    expected = (logits.double() / 0.8).softmax(dim=-1)
    spread = (expected * (1 - expected) / num_draws).sqrt()
    assert bool(((shares - expected).abs() < 4 * spread).all())
