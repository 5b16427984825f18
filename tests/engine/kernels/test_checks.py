import pytest
import torch

from engine.kernels.checks import check_contiguous


def test_a_view_of_every_other_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"strides \(2,\): the last dimension must be contiguous"):
        check_contiguous(torch.zeros(4), torch.zeros(4, 2)[:, 0])


def test_rows_may_lie_apart_as_long_as_each_is_whole() -> None:
    check_contiguous(torch.zeros(4, 6)[:, :3], None, torch.zeros(4, 2)[:1, 0])
