import pytest
import torch

from tests.support.recipe import tiny_dims
from training.model.network import TrainableWhisper
from training.model.optimiser import Optimiser, Rates, rate_factor

RATES = Rates(0.02, 1e-3)


def network() -> TrainableWhisper:
    torch.manual_seed(0)
    return TrainableWhisper(tiny_dims(60))


def backward(trained: TrainableWhisper) -> None:
    outputs = trained(torch.randn(2, 80, 60), torch.randint(60, (2, 5)))
    (outputs.logits.square().mean() + outputs.ctc.square().mean()).backward()


def test_the_rate_rises_soon_and_falls_for_most_of_the_run() -> None:
    factors = [rate_factor(progress / 100) for progress in range(101)]
    assert factors[0] < 0.05
    assert factors[3] == factors[30] == 1.0
    assert factors[65] == pytest.approx(0.5)
    assert factors[100] == 0.02
    assert factors[30:] == sorted(factors[30:], reverse=True)


def test_a_step_moves_every_parameter_but_the_positions() -> None:
    trained = network()
    before = {name: p.detach().clone() for name, p in trained.named_parameters()}
    backward(trained)
    assert Optimiser(trained, RATES).step(1.0)
    still = {name for name, p in trained.named_parameters() if torch.equal(p, before[name])}
    assert still == {"encoder.embed_positions.weight"}
    assert all(p.grad is None for p in trained.parameters())


def test_gradients_that_are_not_finite_change_nothing() -> None:
    trained = network()
    backward(trained)
    assert trained.ctc.bias.grad is not None
    trained.ctc.bias.grad[0] = torch.nan
    before = [p.detach().clone() for p in trained.parameters()]
    assert not Optimiser(trained, RATES).step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), before, strict=True))


def test_going_on_is_the_same_as_never_having_stopped() -> None:
    one, two = network(), network()
    first, second = Optimiser(one, RATES), Optimiser(two, RATES)
    for trained, optimiser in ((one, first), (two, second)):
        torch.manual_seed(1)
        backward(trained)
        optimiser.step(1.0)
    resumed = Optimiser(two, RATES)
    resumed.load_state_dict(second.state_dict())
    for trained, optimiser in ((one, first), (two, resumed)):
        torch.manual_seed(2)
        backward(trained)
        optimiser.step(0.5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
