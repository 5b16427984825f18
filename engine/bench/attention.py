"""Attention back ends side by side: time and memory from 30 s windows to tokens.

In the form of the whisper-flash-attention benchmark: a window alone with a short output, 32
windows with a long one, published sizes and decoders cut to fewer layers. Weights are random and
the length of the output is given, so every back end does the same work. Beside the back end all
is as in service, graphs included where there is a CUDA device.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import torch

from engine.assembly import resolve_kv_dtype
from engine.audio.units import MAX_WINDOW_POSITIONS
from engine.bench.direct import (
    DirectModel,
    ModelSettings,
    free_memory,
    made_up_windows,
    shortest_seconds,
)
from engine.bench.random_checkpoint import PUBLISHED, random_checkpoint
from engine.bench.time_box import TimeBox
from engine.config import Attention
from engine.errors import ConfigError
from engine.model.backends import load_backend
from engine.model.checkpoint import Checkpoint
from engine.model.dims import ModelDims

CHECKPOINTS: Final = ("tiny", "base", "small", "medium")
FEWER_LAYERS: Final = (6, 4, 2)
CASES: Final = ((1, 25), (32, 256))  # windows at once, tokens of each

_WINDOW_S: Final = 30.0
_WARM_UP_TOKENS: Final = 3  # every kind of step once, and what is launched ahead of it
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class _Model:
    """One of the models; `num_layers` of its decoder are there."""

    name: str
    num_layers: int


def measure(
    checkpoints: Sequence[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
    cases: Sequence[tuple[int, int]] = CASES,
    box: TimeBox | None = None,
    sizes: Mapping[str, ModelDims] = PUBLISHED,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for each model, back end and case, and what they must be read with.

    `checkpoints` are names in `sizes`, `cases` numbers of windows and of tokens. "MiB" is the
    most device memory beyond the weights.
    """
    box = box or TimeBox()
    names, missing = available(device, dtype)
    rows: list[dict[str, Any]] = []
    for model in _models(checkpoints, sizes):
        checkpoint: Checkpoint | None = None
        for name in names:
            for num_windows, num_tokens in cases:
                what = (
                    f"{model.name}, {model.num_layers} layers, {name}, "
                    f"{num_windows} x {num_tokens} tokens"
                )
                if not box.admits(what):
                    continue
                if checkpoint is None:
                    checkpoint = random_checkpoint(
                        model.name,
                        device=device,
                        dtype=dtype,
                        decoder_layers=model.num_layers,
                        dims=sizes[model.name],
                    )
                reason = ""
                try:
                    figures = _measure_case(
                        checkpoint, name, num_windows, num_tokens, device, dtype
                    )
                    rows.append(
                        {
                            "model": model.name,
                            "layers": model.num_layers,
                            "back end": name,
                            "windows": num_windows,
                            "tokens": num_tokens,
                            **figures,
                        }
                    )
                except torch.AcceleratorError:
                    raise  # no kernel can be launched after it
                except Exception as exc:  # noqa: BLE001 - any library's way to say that it cannot
                    reason = f"{type(exc).__name__}: {exc}"
                if reason:
                    box.leave_out(what, reason)
                free_memory(device)
    facts = {
        "graphs": device.type == "cuda",
        "back_ends_missing": missing,
        "left_out": box.left_out,
    }
    return rows, facts


def available(
    device: torch.device, dtype: torch.dtype
) -> tuple[tuple[Attention, ...], dict[str, str]]:
    """The back ends that load here, and why the others do not."""
    found: list[Attention] = []
    missing: dict[str, str] = {}
    kv_dtype = resolve_kv_dtype("auto", dtype, device)
    for name in get_args(Attention):
        if name == "auto":
            continue
        if name in ("flash", "triton") and device.type != "cuda":
            missing[name] = "needs a CUDA device"
            continue
        try:
            load_backend(name, dtype, kv_dtype)
        except ConfigError as exc:
            missing[name] = str(exc)
        else:
            found.append(name)
    return tuple(found), missing


def _models(checkpoints: Sequence[str], sizes: Mapping[str, ModelDims]) -> Iterator[_Model]:
    """Whole decoders first, so that what a short time leaves out are the cut ones."""
    for name in checkpoints:
        yield _Model(name, sizes[name].n_text_layer)
    for num_layers in FEWER_LAYERS:
        for name in checkpoints:
            if num_layers < sizes[name].n_text_layer:
                yield _Model(name, num_layers)


def _measure_case(
    checkpoint: Checkpoint,
    attention: Attention,
    num_windows: int,
    num_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, float | None]:
    model = DirectModel(
        checkpoint,
        ModelSettings(attention=attention, graphed=device.type == "cuda"),
        num_rows=num_windows,
        device=device,
        dtype=dtype,
    )
    if device.type == "cuda":
        model.capture_for(num_windows, MAX_WINDOW_POSITIONS)
    windows = made_up_windows(num_windows, _WINDOW_S)
    model.transcribe(windows, MAX_WINDOW_POSITIONS, min(_WARM_UP_TOKENS, num_tokens))
    seconds = shortest_seconds(lambda: model.transcribe(windows, MAX_WINDOW_POSITIONS, num_tokens))
    peak = model.peak_bytes
    return {
        "s": seconds,
        "x real time": num_windows * _WINDOW_S / seconds,
        "MiB": None if peak is None else peak / _MIB,
    }
