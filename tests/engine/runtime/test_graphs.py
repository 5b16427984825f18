"""Graphs by shape, with a recorder that runs the program again where CUDA would replay it."""

import logging
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from engine.bench.direct import record_eagerly
from engine.runtime.buckets import DecodeShape, ExtendShape, Shape
from engine.runtime.graphs import GraphRunner, Program, capture_all

SMALL, LARGE = DecodeShape(2, 256), DecodeShape(4, 256)


def double_and_sum(values: Tensor, offsets: Tensor) -> tuple[Tensor, ...]:
    return 2 * values + offsets, values.sum()


def inputs_of(shape: DecodeShape) -> tuple[Tensor, Tensor]:
    return torch.zeros(shape.rows), torch.zeros(shape.rows)


def captured(*shapes: DecodeShape) -> GraphRunner:
    graphs = GraphRunner(record_eagerly)
    for shape in shapes:
        graphs.capture(shape, double_and_sum, inputs_of(shape))
    return graphs


def test_a_replay_gives_what_the_program_gives() -> None:
    graphs = captured(LARGE, SMALL)
    for shape in (SMALL, LARGE, SMALL):
        values, offsets = torch.rand(shape.rows), torch.rand(shape.rows)
        outputs = graphs.replay(shape, (values, offsets))
        for output, expected in zip(outputs, double_and_sum(values, offsets), strict=True):
            torch.testing.assert_close(output, expected, rtol=0, atol=0)


def test_the_inputs_of_a_graph_stand_still_and_are_copied_into() -> None:
    """A graph reads from addresses: another tensor in its place would never be seen."""
    seen: list[int] = []

    def program(values: Tensor) -> tuple[Tensor, ...]:
        seen.append(values.data_ptr())
        return (values + 1,)

    graphs = GraphRunner(record_eagerly)
    own = torch.zeros(2)
    graphs.capture(SMALL, program, (own,))
    given = torch.tensor([3.0, 4.0])
    graphs.replay(SMALL, (given,))
    assert set(seen) == {own.data_ptr()}
    assert own.tolist() == [3.0, 4.0]
    assert given.tolist() == [3.0, 4.0]


def test_the_outputs_of_a_graph_are_the_same_tensors_at_every_replay() -> None:
    graphs = captured(SMALL)
    first = graphs.replay(SMALL, (torch.ones(2), torch.zeros(2)))
    assert first[0].tolist() == [2.0, 2.0]
    second = graphs.replay(SMALL, (torch.full((2,), 5.0), torch.zeros(2)))
    assert all(one is other for one, other in zip(first, second, strict=True))
    assert first[0].tolist() == [10.0, 10.0]


def test_the_outputs_of_one_shape_outlive_the_replay_of_another() -> None:
    graphs = captured(LARGE, SMALL)
    large = graphs.replay(LARGE, (torch.ones(4), torch.zeros(4)))
    graphs.replay(SMALL, (torch.full((2,), 9.0), torch.zeros(2)))
    assert large[0].tolist() == [2.0] * 4


def test_only_what_was_captured_can_be_replayed() -> None:
    graphs = captured(SMALL)
    assert graphs.can_replay(SMALL)
    assert not graphs.can_replay(LARGE)
    assert not graphs.can_replay(ExtendShape(2, 256))
    with pytest.raises(KeyError):
        graphs.replay(LARGE, inputs_of(LARGE))


def test_too_few_or_misshapen_inputs_are_refused() -> None:
    graphs = captured(SMALL)
    with pytest.raises(ValueError, match="zip"):
        graphs.replay(SMALL, (torch.zeros(2),))
    with pytest.raises(RuntimeError, match="size"):
        graphs.replay(SMALL, (torch.zeros(3), torch.zeros(2)))


def test_graphs_are_counted() -> None:
    graphs = captured(LARGE, SMALL)
    assert len(graphs) == 2
    graphs.capture(SMALL, double_and_sum, inputs_of(SMALL))
    assert len(graphs) == 2, "the same shape again replaces its graph"


def test_all_shapes_are_captured_in_their_order_and_the_log_says_how_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorded: list[int] = []

    def record(
        program: Program, inputs: Sequence[Tensor]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        recorded.append(len(inputs[0]))
        return record_eagerly(program, inputs)

    graphs = GraphRunner(record)
    shapes: list[Shape] = [LARGE, SMALL]

    def capture(shape: Shape) -> None:
        assert isinstance(shape, DecodeShape)
        graphs.capture(shape, double_and_sum, inputs_of(shape))

    with caplog.at_level(logging.INFO, "engine.runtime.graphs"):
        capture_all(graphs, shapes, capture)
    assert recorded == [4, 2]
    assert "2 CUDA graphs captured in" in caplog.text


def test_a_shape_for_which_there_is_no_memory_is_left_out_and_the_others_are_captured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    graphs = GraphRunner(record_eagerly)

    def capture(shape: Shape) -> None:
        if shape == LARGE:
            raise torch.OutOfMemoryError("CUDA out of memory")
        graphs.capture(shape, double_and_sum, inputs_of(SMALL))

    capture_all(graphs, [LARGE, SMALL], capture)
    assert (graphs.can_replay(LARGE), graphs.can_replay(SMALL)) == (False, True)
    assert "no memory for the graph of DecodeShape(rows=4" in caplog.text
