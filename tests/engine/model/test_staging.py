import numpy as np
import torch

from engine.model.staging import pinned, to_device

CPU = torch.device("cpu")


def test_values_arrive_with_their_shape_and_type() -> None:
    values = np.arange(6, dtype=np.int32).reshape(2, 3)
    arrived = to_device(values, CPU)
    assert arrived.dtype is torch.int32
    assert arrived.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_nothing_is_copied_for_a_processor() -> None:
    values = np.zeros(3)
    pinned(values, CPU)[1] = 4.0
    assert values.tolist() == [0.0, 4.0, 0.0]
