import pytest
import torch
from torch import nn

from training.errors import RecipeError
from training.model.muon import Muon, orthogonal

SHAPES = ((24, 16), (16, 24), (16, 16), (24, 16))


def matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    made = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    for matrix in made:
        matrix.grad = torch.randn(matrix.shape, generator=generator)
    return made


def test_singular_values_come_near_one_and_the_vectors_stay() -> None:
    drawn = torch.randn(5, 24, 16, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(drawn, full_matrices=False)
    made = orthogonal(drawn).float()
    values = (left.mT @ made @ right.mT).diagonal(dim1=1, dim2=2)
    assert 0.6 < values.min() < values.max() < 1.25
    assert (made - left @ torch.diag_embed(values) @ right).abs().max() < 0.05


def test_steps_are_those_of_torch_matrix_by_matrix() -> None:
    ours, theirs = matrices(), matrices()
    muon = Muon(ours)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.01, adjust_lr_fn="original")
    for _ in range(3):
        muon.step(0.02)
        reference.step()  # type: ignore[no-untyped-call]
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 2e-3  # of steps of 0.06, in bfloat16


def test_a_matrix_without_a_gradient_is_refused() -> None:
    made = matrices()
    made[1].grad = None
    with pytest.raises(RecipeError, match="gradients of 4 matrices, found 3"):
        Muon(made).step(0.02)
