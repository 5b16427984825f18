"""CUDA graphs: capture a program once per shape, then replay it with one launch.

A program is a function of device tensors that reads nothing back to the host. Its inputs and
outputs stand still, so a replay copies inputs in, and whoever reads the outputs does so on the
same stream, before the next replay of the same shape.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.runtime.buckets import Shape

logger = logging.getLogger(__name__)

Program = Callable[..., tuple[Tensor, ...]]
# Records a program over inputs that stand still; returns what replays it, and its outputs.
Record = Callable[[Program, Sequence[Tensor]], tuple[Callable[[], None], tuple[Tensor, ...]]]


class CudaRecorder:
    """Records with `torch.cuda.CUDAGraph`; all graphs share one memory pool."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._side: Any = None  # one for all: each stream has a workspace of its own

    def __call__(
        self, program: Program, inputs: Sequence[Tensor]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """Run once as it is, for kernels are compiled and plans made at a first time; record."""
        if self._side is None:
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            program(*inputs)
        torch.cuda.current_stream().wait_stream(self._side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile without spoiling what is recorded here.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"
        ):
            outputs = program(*inputs)
        if self._pool is None:
            self._pool = graph.pool()
        return graph.replay, outputs


@dataclass(frozen=True, slots=True)
class _Captured:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    replay: Callable[[], None]


class GraphRunner:
    """The graphs of an engine, by shape. Touched only by the engine thread."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._captured: dict[Shape, _Captured] = {}

    def capture(self, shape: Shape, program: Program, inputs: Sequence[Tensor]) -> None:
        """Record `program` over `inputs`, which become the graph's own."""
        replay, outputs = self._record(program, inputs)
        self._captured[shape] = _Captured(tuple(inputs), outputs, replay)

    def can_replay(self, shape: Shape) -> bool:
        """Whether that shape was captured."""
        return shape in self._captured

    def replay(self, shape: Shape, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the graph of `shape` on `inputs`; its outputs hold until its next replay."""
        captured = self._captured[shape]
        for target, source in zip(captured.inputs, inputs, strict=True):
            target.copy_(source, non_blocking=True)
        captured.replay()
        return captured.outputs

    def __len__(self) -> int:
        return len(self._captured)


def capture_all(
    graphs: GraphRunner, shapes: Sequence[Shape], capture: Callable[[Shape], None]
) -> None:
    """Capture every shape; says in the log how long it took and what memory it needs.

    What does not fit into memory is left out: such steps run eagerly, in halves if need be.
    """
    started = time.monotonic()
    before = torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
    for shape in shapes:
        try:
            capture(shape)
        except torch.OutOfMemoryError as exc:
            logger.warning("no memory for the graph of %s: %s", shape, exc)
    after = torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
    logger.info(
        "%d CUDA graphs captured in %.1f s, %.0f MiB",
        len(graphs),
        time.monotonic() - started,
        (after - before) / 2**20,
    )
