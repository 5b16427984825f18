"""One model driven step by step, without a scheduler: what the tables of a device measure.

The parts are the service's own: `DeviceRunner`, its programs and its graphs. Only of the hundreds
of graphs that an engine captures, those alone are there whose shapes are measured, and how many
tokens come is decided by how many steps are launched, whatever the model says.
"""

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.assembly import prepare_device, resolve_kv_dtype
from engine.audio.units import SAMPLE_RATE, Positions
from engine.bench.random_checkpoint import random_audio
from engine.config import Attention, KvDtype, Weights
from engine.model.checkpoint import Checkpoint
from engine.model.quantized import quantize_weights
from engine.model.whisper import Whisper
from engine.runtime.attention_choice import Timer, cuda_timer
from engine.runtime.buckets import (
    Shape,
    decode_shape,
    encode_shape,
    feed_shape,
    shapes_to_capture,
)
from engine.runtime.caches import SlotCaches
from engine.runtime.device_assembly import assemble_device_runner, has_triton
from engine.runtime.graphs import CudaRecorder, GraphRunner, Program
from engine.runtime.pending import Pending
from engine.runtime.sampling import DecodingRules
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import (
    DecodeStep,
    EncodeRow,
    EncodeStep,
    PrefillRow,
    PrefillStep,
    Sampling,
    Step,
    TokenRow,
    TokensResult,
    VerifyRow,
    VerifyStep,
)

Audio = NDArray[np.float32]

_CPU_REPEATS: Final = 2
_GPU_WARM_UPS: Final = 3
_GPU_REPEATS: Final = 10
_LEAST_TIMED_S: Final = 0.3  # what is over sooner is run again: a hiccup would be all of it


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What of an engine's configuration a table varies; the words are `EngineConfig`'s.

    `graphed`: the shapes that an engine would have graphs of are replayed, as in service. Where
    there is no CUDA device a replay runs the program again.
    """

    attention: Attention = "auto"
    weights: Weights = "auto"
    kv_dtype: KvDtype = "auto"
    graphed: bool = True


class DirectModel:
    """A model with caches for `num_rows` windows. Touched only by the thread that measures.

    Raises ConfigError for what this machine lacks, torch.OutOfMemoryError for what it has not
    the memory for.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        *,
        num_rows: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        prepare_device(device)
        on_gpu = device.type == "cuda"
        self.dims = checkpoint.dims
        self.device = device
        model = Whisper.from_checkpoint(checkpoint, dtype=dtype, device=device)
        if settings.weights != "auto":
            quantize_weights(model, settings.weights)
        self.weight_bytes = sum(it.nbytes for it in (*model.parameters(), *model.buffers()))
        self._allocated_bytes = 0
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
            self._allocated_bytes = torch.cuda.memory_allocated(device)
        self.kv_dtype = resolve_kv_dtype(settings.kv_dtype, dtype, device)
        self.caches = SlotCaches.allocate(
            checkpoint.dims, num_rows, dtype=self.kv_dtype, device=device
        )
        tokenizer = checkpoint.tokenizer
        self.eot = tokenizer.eot
        self._prefix = tokenizer.forced_prefix(
            next(iter(tokenizer.languages)), "transcribe", timestamps=False
        )
        self._sampling = Sampling(len(self._prefix), timestamps=False)
        self._graphs = None
        if settings.graphed:
            self._graphs = GraphRunner(CudaRecorder() if on_gpu else record_eagerly)
        self._runner = assemble_device_runner(
            model,
            self.caches,
            DecodingRules.build(checkpoint.generation, tokenizer, checkpoint.dims.n_vocab, device),
            settings.attention,
            fused=on_gpu and has_triton(),
            time=cuda_timer if on_gpu else None,
            graphs=self._graphs,
        )
        self._generation = 0

    @property
    def peak_bytes(self) -> int | None:
        """Most device memory in use at once beyond the weights; None where nobody counts it."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device) - self._allocated_bytes

    def capture(self, shape: Shape) -> None:
        """Record the graph of one shape."""
        self._runner.capture(shape)

    @torch.inference_mode()
    def replay(self, shape: Shape, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the graph of a captured shape on inputs of that shape."""
        if self._graphs is None:
            raise ValueError("this model was built without graphs")
        return self._graphs.replay(shape, inputs)

    def capture_for(self, num_windows: int, context: Positions) -> None:
        """Record what an engine would have recorded of the shapes that `transcribe` comes to."""
        wanted = {
            encode_shape(num_windows, context),
            feed_shape(num_windows, len(self._prefix), 0, context),
            decode_shape(num_windows, context),
        }
        for shape in shapes_to_capture(num_windows):
            if shape in wanted:
                self.capture(shape)

    def transcribe(
        self, windows: Sequence[Audio], context: Positions, num_tokens: int
    ) -> list[tuple[int, ...]]:
        """Exactly `num_tokens` tokens of each window, all windows as one batch.

        From samples on: features, encode, prefill and decode steps, as many launched ahead as the
        loop of an engine launches.
        """
        slots = self._slots(len(windows))
        rows = [PrefillRow(slot, self._prefix, 0, self._sampling) for slot in slots]
        steps: list[Step] = [
            EncodeStep(tuple(map(EncodeRow, slots, windows)), context),
            PrefillStep(tuple(rows)),
            *[DecodeStep(slots)] * (num_tokens - 1),
        ]
        chosen: list[tuple[int, ...]] = [()] * len(windows)
        for result in self._results(steps):
            chosen = [tokens + row.tokens for tokens, row in zip(chosen, result, strict=True)]
        return chosen

    def choices(self, window: Audio, context: Positions, tokens: Sequence[int]) -> tuple[int, ...]:
        """What the model chooses in place of each of `tokens`, having been fed those before it."""
        (slot,) = self._slots(1)
        self._runner.launch(EncodeStep((EncodeRow(slot, window),), context)).result()
        chosen: tuple[int, ...] = ()
        start, fed = 0, tuple(self._prefix)
        # A verification says what was chosen up to the first difference; go on behind it.
        while len(chosen) < len(tokens):
            draft = tuple(tokens[len(chosen) :])
            row = VerifyRow(slot, start, fed, draft, 0, self._sampling)
            chosen += _token_rows(self._runner.launch(VerifyStep((row,))))[0].tokens
            start = len(self._prefix) + len(chosen) - 1
            fed = (tokens[min(len(chosen), len(tokens)) - 1],)
        return chosen[: len(tokens)]

    def _slots(self, count: int) -> tuple[SlotHandle, ...]:
        """The first `count` slots, whose audio is new."""
        self._generation += 1
        return tuple(SlotHandle(index, self._generation) for index in range(count))

    def _results(self, steps: Iterable[Step]) -> Iterator[Sequence[TokenRow]]:
        in_flight: deque[Pending] = deque()
        for step in steps:
            pending = self._runner.launch(step)
            if isinstance(step, EncodeStep):
                continue  # its slots are known, and steps run in order
            in_flight.append(pending)
            if len(in_flight) > self._runner.run_ahead:
                yield _token_rows(in_flight.popleft())
        while in_flight:
            yield _token_rows(in_flight.popleft())


def _token_rows(pending: Pending) -> list[TokenRow]:
    result = pending.result()
    if not isinstance(result, TokensResult):
        raise AssertionError(f"expected tokens, got {type(result).__name__}")
    return [row for row in result.rows if isinstance(row, TokenRow)]


def record_eagerly(
    program: Program, inputs: Sequence[Tensor]
) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    """In place of CUDA's recorder where there is no such device: a replay runs the program."""
    outputs = program(*inputs)

    def replay() -> None:
        for target, source in zip(outputs, program(*inputs), strict=True):
            target.copy_(source)

    return replay, outputs


def timer_of(device: torch.device) -> Timer:
    """Seconds of a call: by the device's own events on a GPU, by the clock on a processor."""
    return _gpu_timer if device.type == "cuda" else _cpu_timer


def _gpu_timer(call: Callable[[], object]) -> float:
    """Not within a graph, as `cuda_timer` is: a replay is one, and large operations need none."""
    for _ in range(_GPU_WARM_UPS):
        call()
    started = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    stopped = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    started.record()
    for _ in range(_GPU_REPEATS):
        call()
    stopped.record()
    stopped.synchronize()
    return float(started.elapsed_time(stopped)) / 1000 / _GPU_REPEATS


def _cpu_timer(call: Callable[[], object]) -> float:
    call()
    started = perf_counter()
    for _ in range(_CPU_REPEATS):
        call()
    return (perf_counter() - started) / _CPU_REPEATS


def shortest_seconds(call: Callable[[], object]) -> float:
    """Wall time of a call that ends when the device is done; the shortest of a few where short."""
    times: list[float] = []
    while sum(times) < _LEAST_TIMED_S:
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return min(times)


def made_up_windows(number: int, seconds: float) -> list[Audio]:
    """`number` different windows for models that have learnt nothing."""
    count = round(seconds * SAMPLE_RATE)
    return [random_audio(count, seed=seed) for seed in range(number)]


def free_memory(device: torch.device) -> None:
    """Give back what nobody holds any more, so that the next figure does not depend on the last."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
