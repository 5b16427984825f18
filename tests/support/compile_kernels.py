"""Compile every kernel of `engine.kernels` for a GPU that need not be there.

    TRITON_INTERPRET=0 python -m tests.support.compile_kernels --target sm_90 --dtype bfloat16

The host functions are called on tensors without meaning, in the shapes of large-v3-turbo and of
a toy. Every launch is compiled as it was made, with its types, constants and options, by the
compiler and the assembler that come with Triton; nothing is run. Prints what the assembler says
of each kernel as a table, then as one JSON line.

A process of its own, because kernels are interpreted for good where `TRITON_INTERPRET` is 1 when
they are imported, as it is in tests.
"""

import argparse
import contextlib
import importlib
import io
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count, product
from typing import Any, Final
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.errors import TritonError
from triton.runtime.jit import JITFunction

import engine.kernels
from engine.audio.units import MAX_WINDOW_FRAMES, MAX_WINDOW_POSITIONS, MAX_WINDOW_SAMPLES
from engine.bench.report import report
from engine.kernels import alignment_weights, slot_attention
from engine.kernels.decode_state import begin_decode, end_decode
from engine.kernels.gelu import bias_gelu
from engine.kernels.layer_norm import add_layer_norm
from engine.kernels.log_mel import mel_features, update_log_mel
from engine.kernels.plain_attention import FLOAT8
from engine.kernels.plain_log_mel import BLOCK_FRAMES, MelTables
from engine.kernels.token_choice import choose_tokens
from engine.kernels.weight_only import dequantize_weight, weight_only_linear
from engine.model.backends import load_backend
from engine.model.dims import ModelDims
from engine.model.mel import mel_filters
from engine.model.padded import Padded
from engine.model.quantized import GROUP_FEATURES
from engine.runtime.caches import SlotCaches
from tests.support.model_dims import small_dims

CPU: Final = torch.device("cpu")
DTYPES: Final = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of GPU, and what one multiprocessor of it has."""

    capability: int  # major × 10 + minor
    multiprocessors: int
    shared_bytes: int  # that one program may have
    all_shared_bytes: int  # that all programs together have, 1 KiB of each of them reserved
    warps: int


# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
TARGETS: Final = {
    "sm_80": Target(80, 108, 163 * 1024, 164 * 1024, 64),  # A100
    "sm_89": Target(89, 58, 99 * 1024, 100 * 1024, 48),  # L4
    "sm_90": Target(90, 132, 227 * 1024, 228 * 1024, 64),  # H200
}
_REGISTERS: Final = 65536  # of a multiprocessor, on all of these
_RESERVED_SHARED_BYTES: Final = 1024  # of each program, by the system

# Large-v3-turbo, but for the number of layers, which are all alike.
TURBO: Final = small_dims(
    n_mels=128,
    n_audio_state=1280,
    n_audio_head=20,
    n_audio_mlp=5120,
    n_vocab=51866,
    n_text_ctx=448,
    n_text_state=1280,
    n_text_head=20,
    n_text_mlp=5120,
)
TOY: Final = small_dims(n_mels=80, n_audio_state=16, n_text_state=16, n_vocab=2000)  # heads of 8


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel as one call needs it, and what the assembler said. `error` is empty if it could."""

    kernel: str
    call: str
    warps: int = 0
    registers: int = 0  # of one thread
    spilled: int = 0  # bytes of one thread that do not fit into registers
    shared: int = 0  # bytes of one program
    resident: int = 0  # programs that one multiprocessor holds at once
    error: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a host function, by name."""

    name: str
    make: Callable[[], object]


_NUMBERS: Final = count()


class _AbsentDevice:
    """As much of a driver as Triton asks while it compiles."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._number = next(_NUMBERS)  # by which Triton remembers what it has compiled

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._target.capability, 32)

    def get_current_device(self) -> int:
        return self._number

    def get_current_stream(self, device: int) -> int:
        return 0


class Compiler:
    """Compiles what is launched, once each."""

    def __init__(self, target: Target) -> None:
        self.compiled: list[Compiled] = []
        self._target = target
        self._seen: set[str] = set()
        self._call = ""
        self._run = JITFunction.run

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Launches compile for the target; host functions take it for their device."""
        triton.runtime.driver.set_active(_AbsentDevice(self._target))
        triton.knobs.compilation.always_compile = True  # what is cached has no assembler's report
        triton.knobs.nvidia.dump_ptxas_log = True
        converts = self._target.capability >= 89
        with (
            mock.patch.object(JITFunction, "run", lambda *args, **kw: self._launch(*args, **kw)),
            mock.patch.object(slot_attention, "has_native_float8", return_value=converts),
            mock.patch.object(alignment_weights, "has_native_float8", return_value=converts),
            mock.patch.object(
                slot_attention, "num_multiprocessors", return_value=self._target.multiprocessors
            ),
        ):
            yield

    def call(self, call: Call) -> None:
        """Compile all that `call` launches."""
        self._call = call.name
        call.make()

    def _launch(self, kernel: Any, *args: Any, **kwargs: Any) -> None:
        name = f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__}"
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                compiled = self._run(kernel, *args, **{**kwargs, "warmup": True})
        except (TritonError, RuntimeError) as exc:
            self.compiled.append(Compiled(name, self._call, error=str(exc) or repr(exc)))
            return
        if compiled.hash in self._seen:
            return
        self._seen.add(compiled.hash)
        shared, warps = compiled.metadata.shared, compiled.metadata.num_warps
        registers = _number(r"Used (\d+) registers", said.getvalue())
        self.compiled.append(
            Compiled(
                name,
                self._call,
                warps,
                registers,
                _number(r"(\d+) bytes spill stores", said.getvalue()),
                shared,
                self._resident(warps, registers, shared),
            )
        )

    def _resident(self, warps: int, registers: int, shared: int) -> int:
        """Programs beside each other; none where one alone is too large to be launched."""
        target = self._target
        if shared > target.shared_bytes:
            return 0
        per_warp = -(-registers * 32 // 256) * 256  # registers are given out in units of 256
        return min(
            _REGISTERS // (per_warp * warps),
            target.all_shared_bytes // (shared + _RESERVED_SHARED_BYTES),
            target.warps // warps,
        )


def _number(pattern: str, said: str) -> int:
    found = re.search(pattern, said)
    if found is None:
        raise RuntimeError(f"the assembler said nothing of {pattern!r}: {said}")
    return int(found[1])


def kernel_names() -> set[str]:
    """Every kernel of `engine.kernels`: what is compiled and called by nothing compiled."""
    functions: dict[str, Any] = {}
    for module in pkgutil.iter_modules(engine.kernels.__path__):
        loaded = importlib.import_module(f"engine.kernels.{module.name}")
        for value in vars(loaded).values():
            if isinstance(value, JITFunction):
                functions[f"{value.fn.__module__.rpartition('.')[2]}.{value.fn.__name__}"] = value
    called = {name for value in functions.values() for name in value.fn.__code__.co_names}
    return {name for name in functions if name.partition(".")[2] not in called}


def calls(dtype: torch.dtype, *, brief: bool) -> Iterator[Call]:
    """Calls of every host function for a model in `dtype`.

    `brief` are few calls of large-v3-turbo, which launch every kernel all the same; else there
    are all widths, caches in `dtype` and in float8, and a toy.
    """
    for dims in (TURBO,) if brief else (TURBO, TOY):
        for kv_dtype in (FLOAT8,) if brief else (dtype, FLOAT8):
            yield from _attention_calls(dims, dtype, kv_dtype, brief=brief)
        yield from _other_calls(dims, dtype)
    yield from _weight_calls(dtype, brief=brief)


def _attention_calls(
    dims: ModelDims, dtype: torch.dtype, kv_dtype: torch.dtype, *, brief: bool
) -> Iterator[Call]:
    backend = load_backend("triton", dtype, kv_dtype)
    (cache,) = SlotCaches.allocate(dims, 1, dtype=kv_dtype, device=CPU).layers
    heads, head_dim = dims.n_text_head, dims.n_text_state // dims.n_text_head

    def vectors(*sizes: int) -> Tensor:
        return torch.empty(*sizes, heads, head_dim, dtype=dtype)

    def layout(rows: int, width: int, reach: int = MAX_WINDOW_POSITIONS) -> Padded:
        slots = torch.zeros(rows, dtype=torch.int64)
        return Padded(
            backend,
            slots,
            slots,
            slots,
            width=width,
            most_tokens=dims.n_text_ctx,
            most_positions=reach,
        )

    def attend_self(rows: int, width: int) -> None:
        query, key, value = vectors(rows * width, 3).unbind(1)  # as they come from one product
        layout(rows, width).attend_self(query, key, value, cache.self_attn)

    def attend_cross(rows: int, width: int, reach: int) -> None:
        layout(rows, width, reach).attend_cross(vectors(rows * width), cache.cross_attn)

    def encode(rows: int, positions: int) -> None:
        query, key, value = vectors(rows, positions, 3).unbind(2)
        backend.encode(query, key, value)

    def store(rows: int, count: int, starts: Tensor | None) -> None:
        keys, values = vectors(rows, count, 2).unbind(2)
        slots = torch.zeros(rows, dtype=torch.int64)
        scales = {
            "key_scales": cache.cross_attn.key_scales,
            "value_scales": cache.cross_attn.value_scales,
        }
        kept = cache.cross_attn
        backend.store(keys, values, kept.keys, kept.values, slots, starts=starts, **scales)

    def look(rows: int, width: int) -> None:
        layout(rows, width).look(vectors(rows * width), cache.cross_attn, (0, 1))

    # One row does not fill a device, so that its keys are split; many rows do.
    sizes = ((1, 1), (1, 8)) if brief else tuple(product((1, 256), (1, 8, 32, 64)))
    reaches = (MAX_WINDOW_POSITIONS,) if brief else (256, MAX_WINDOW_POSITIONS)
    about = f"heads of {head_dim}, {_short(dtype)}, caches {_short(kv_dtype)}"
    for rows, width in sizes:
        yield Call(f"self {rows} x {width}, {about}", partial(attend_self, rows, width))
        for reach in reaches:
            yield Call(
                f"cross {rows} x {width} of {reach}, {about}",
                partial(attend_cross, rows, width, reach),
            )
        if width > 1:
            yield Call(f"look {rows} x {width}, {about}", partial(look, rows, width))
    yield Call(f"store 1 x 1500, {about}", partial(store, 1, MAX_WINDOW_POSITIONS, None))
    if not brief:
        yield Call(f"store 8 x 8, {about}", partial(store, 8, 8, torch.zeros(8, dtype=torch.int64)))
    if kv_dtype is dtype and not brief:
        yield Call(f"encode 1 x 1500, {about}", partial(encode, 1, MAX_WINDOW_POSITIONS))


def _other_calls(dims: ModelDims, dtype: torch.dtype) -> Iterator[Call]:
    state, about = dims.n_text_state, f"{dims.n_text_state} wide, {_short(dtype)}"
    for rows in (1, 256):
        yield Call(f"choose {rows}, {about}", partial(_choose, rows, dims, dtype))
    yield Call(f"mel, {about}", partial(_log_mel, dims, dtype))
    hidden, vector = torch.empty(8, state, dtype=dtype), torch.empty(state, dtype=dtype)
    for update in (hidden, None):
        yield Call(
            f"norm{'' if update is None else ' of a sum'}, {about}",
            partial(add_layer_norm, hidden, update, vector, vector),
        )
    middle = torch.empty(8, dims.n_text_mlp, dtype=dtype)
    yield Call(f"gelu, {about}", partial(bias_gelu, middle, middle[0]))
    yield Call(f"ends of a decode, {about}", partial(_decode_ends, dims, dtype))


def _choose(rows: int, dims: ModelDims, dtype: torch.dtype) -> None:
    caches = SlotCaches.allocate(dims, 1, dtype=dtype, device=CPU)
    per_row, per_id = torch.zeros(rows, dtype=torch.int64), torch.zeros(dims.n_vocab).bool()
    choose_tokens(
        torch.empty(rows, dims.n_vocab, dtype=dtype),
        caches.tokens,
        per_row,
        per_row,
        caches.begins,
        caches.timestamps,
        caches.temperatures,
        caches.seeds,
        per_id,
        per_id,
        eot=dims.n_vocab - 1609,
        no_timestamps=dims.n_vocab - 1502,
        timestamp_begin=dims.n_vocab - 1501,
        max_initial_timestamp=50,
    )


def _decode_ends(dims: ModelDims, dtype: torch.dtype) -> None:
    caches = SlotCaches.allocate(dims, 1, dtype=dtype, device=CPU)
    row, words = torch.zeros(8, dtype=torch.int64), torch.empty(8, dims.n_text_state, dtype=dtype)
    _, seen, _ = begin_decode(row, caches.lengths, caches.contexts, caches.tokens, words, words)
    end_decode(row, seen, row, torch.zeros(8), caches.lengths, caches.tokens, caches.most_tokens)


def _log_mel(dims: ModelDims, dtype: torch.dtype) -> None:
    row = torch.zeros(1, dtype=torch.int64)
    # One sample more than a window, as `SlotFeatures` has it.
    audio = torch.zeros(2, MAX_WINDOW_SAMPLES + 1)[:, :MAX_WINDOW_SAMPLES]
    frames = torch.zeros(2, MAX_WINDOW_FRAMES, dims.n_mels)
    peaks = torch.zeros(2, -(-MAX_WINDOW_FRAMES // BLOCK_FRAMES))
    tables = MelTables.build(mel_filters(dims.n_mels), CPU)
    update_log_mel(audio, row, row, row, frames, peaks, tables, most_blocks=4)
    mel_features(frames, peaks, row, row, MAX_WINDOW_FRAMES, dtype)


def _weight_calls(dtype: torch.dtype, *, brief: bool) -> Iterator[Call]:
    for bits in (8, 4):
        # The last is for many programs; the others for one split, and for several.
        for outputs, inputs in ((1280, 5120),) if brief else ((1280, 5120), (5120, 1280), (24, 40)):
            group = inputs if bits == 8 else GROUP_FEATURES
            groups = -(-inputs // group)
            weight = (
                torch.empty(outputs, inputs, dtype=torch.int8)
                if bits == 8
                else torch.empty(groups, outputs, group // 2, dtype=torch.uint8)
            )
            scales = torch.empty(groups, outputs, dtype=torch.bfloat16)
            bias = torch.empty(outputs, dtype=dtype)
            about = f"{bits} bits, {inputs} to {outputs}, {_short(dtype)}"
            for rows in (1, 8) if brief else (1, 8, 32, 64):
                x = torch.empty(rows, inputs, dtype=dtype)
                yield Call(
                    f"product {rows}, {about}",
                    partial(weight_only_linear, x, weight, scales, bias, bits=bits, group=group),
                )
            yield Call(
                f"dequantise, {about}",
                partial(
                    dequantize_weight,
                    weight,
                    scales,
                    num_inputs=inputs,
                    bits=bits,
                    group=group,
                    dtype=dtype,
                ),
            )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main() -> None:
    """Compile for one target; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--brief", action="store_true", help="few calls, but every kernel")
    arguments = parser.parse_args()
    kernels = kernel_names()
    if not kernels:
        raise SystemExit("kernels are interpreted here; set TRITON_INTERPRET to 0")
    compiler = Compiler(TARGETS[arguments.target])
    with compiler.installed():
        for call in calls(DTYPES[arguments.dtype], brief=arguments.brief):
            compiler.call(call)
    report(
        f"kernels of {arguments.target} in {arguments.dtype}",
        [asdict(compiled) for compiled in compiler.compiled],
        {"target": arguments.target, "dtype": arguments.dtype, "kernels": sorted(kernels)},
    )


if __name__ == "__main__":
    main()
