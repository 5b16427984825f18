"""Number formats of weights and caches side by side: time, memory, and what they change.

Time is that of random weights of published sizes, memory is counted, and whether the words stay
the same is asked of a model that has learnt some: the embedded one, on real speech. Twice: of how
many tokens, each behind the same ones before it, does the choice stay what the plain format
chose; and how many requests come out equal from end to end. The second alone would say little of
a format: one token that differs, and all behind it are decoded from another history.

A request is equal exactly where none of its choices differs, since each is then made behind the
choices before it, so one pass tells both. The plain format is asked the same way: its row says
what verifying several tokens at once changes by itself, by rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from engine.assembly import resolve_kv_dtype
from engine.audio.units import SAMPLE_RATE, Positions
from engine.bench.direct import (
    Audio,
    DirectModel,
    ModelSettings,
    free_memory,
    made_up_windows,
    shortest_seconds,
)
from engine.bench.random_checkpoint import PUBLISHED, random_checkpoint
from engine.bench.report import dtype_name
from engine.bench.throughput import REQUEST_SECONDS
from engine.bench.time_box import TimeBox
from engine.config import EngineConfig, KvDtype, Weights
from engine.model.checkpoint import Checkpoint, load_checkpoint
from engine.model.dims import ModelDims
from engine.model.hub import resolve_model
from engine.runtime.caches import slot_bytes
from engine.scheduling.contexts import ContextPolicy

NUM_REQUESTS: Final = 64
NUM_SPOKEN: Final = 24  # requests that are compared token by token
TOKENS: Final = 30  # of a timed request: people say 4 to 7 a second

_FULL: Final = Positions(1500)
_TRIMMED: Final = Positions(448)  # 6 s and the margin of a stock checkpoint
_WARM_UP_TOKENS: Final = 3
_MOST_TOKENS: Final = 100  # in 6 s: whoever says more is inventing
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Format:
    """How weights and caches are kept; "auto" is the plain format of the model."""

    weights: Weights = "auto"
    kv_dtype: KvDtype = "auto"


FORMATS: Final = (
    Format(),
    Format(weights="int8"),
    Format(weights="int4"),
    Format(kv_dtype="fp8"),
    Format(weights="int8", kv_dtype="fp8"),
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Shares of choices and of whole requests that are the plain format's, of how many choices."""

    choices: float
    requests: float
    num_choices: int

    @classmethod
    def of(cls, said: Sequence[Sequence[int]], chosen: Sequence[Sequence[int]]) -> "Agreement":
        """What was `said` to each request beside what another format chose in its place."""
        same = [
            sum(a == b for a, b in zip(ours, theirs, strict=True))
            for ours, theirs in zip(said, chosen, strict=True)
        ]
        whole = [count == len(tokens) for count, tokens in zip(same, said, strict=True)]
        num_choices = sum(map(len, said))
        return cls(sum(same) / num_choices, sum(whole) / len(whole), num_choices)


def cut_overlapping(recordings: Sequence[Audio], number: int) -> list[Audio]:
    """`number` stretches of six seconds that begin evenly spread over `recordings`."""
    length = REQUEST_SECONDS * SAMPLE_RATE
    pool = np.concatenate(recordings)
    if len(pool) < length:
        pool = np.pad(pool, (0, length - len(pool)))
    starts = np.linspace(0, len(pool) - length, number).round().astype(int)
    return [pool[start : start + length] for start in starts]


def agreements(
    checkpoint: Checkpoint,
    requests: Sequence[Audio],
    *,
    device: torch.device,
    dtype: torch.dtype,
    formats: Sequence[Format] = FORMATS,
) -> dict[Format, Agreement]:
    """What each format changes of what the plain one says to `requests`."""
    policy = ContextPolicy.of(EngineConfig(), trained_trimmed=checkpoint.traits.trimmed_context)
    trimmed = policy.is_trimmed("auto", final=True)
    context = policy.positions(max(map(len, requests)), trimmed=trimmed)
    said: list[tuple[int, ...]] = []
    found: dict[Format, Agreement] = {}
    for kind in (Format(), *(it for it in formats if it != Format())):
        model = _build(checkpoint, kind, len(requests), device, dtype, graphed=False)
        if not said:
            decoded = model.transcribe(requests, context, _MOST_TOKENS)
            said = [_up_to(model.eot, tokens) for tokens in decoded]
        chosen = [
            model.choices(request, context, tokens)
            for request, tokens in zip(requests, said, strict=True)
        ]
        found[kind] = Agreement.of(said, chosen)
        del model
        free_memory(device)
    return {kind: found[kind] for kind in formats}


def agreements_on_speech(
    recordings: Sequence[Audio],
    *,
    device: torch.device,
    dtype: torch.dtype,
    num_requests: int = NUM_SPOKEN,
) -> dict[Format, Agreement]:
    """What each format changes of what the embedded model says to stretches of `recordings`."""
    checkpoint = load_checkpoint(resolve_model("embedded", device=device.type))
    requests = cut_overlapping(recordings, num_requests)
    return agreements(checkpoint, requests, device=device, dtype=dtype)


def measure(
    name: str,
    agreed: Mapping[Format, Agreement],
    *,
    device: torch.device,
    dtype: torch.dtype,
    num_requests: int = NUM_REQUESTS,
    num_tokens: int = TOKENS,
    box: TimeBox | None = None,
    sizes: Mapping[str, ModelDims] = PUBLISHED,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for each format in `agreed`, and what they must be read with.

    `name` is one in `sizes`. The requests are one batch, with contexts cut to the audio and in
    full. "agree" and "equal" are the shares of choices and of whole requests that stay what they
    were.
    """
    box = box or TimeBox()
    checkpoint = random_checkpoint(name, device=device, dtype=dtype, dims=sizes[name])
    requests = made_up_windows(num_requests, REQUEST_SECONDS)
    rows: list[dict[str, Any]] = []
    for kind, agreement in agreed.items():
        weights, kept = _words(kind, dtype, device)
        what = f"{weights} weights, {kept} caches"
        if not box.admits(what):
            continue
        try:
            figures = _measure_format(checkpoint, kind, requests, num_tokens, device, dtype)
        except torch.OutOfMemoryError as exc:
            box.leave_out(what, str(exc))
        else:
            rows.append(
                {
                    "weights": weights,
                    "caches": kept,
                    **figures,
                    "agree": agreement.choices,
                    "equal": agreement.requests,
                }
            )
        free_memory(device)
    facts = {
        "checkpoint": name,
        "graphs": device.type == "cuda",
        "requests": num_requests,
        "tokens_per_request": num_tokens,
        "choices_compared": max((it.num_choices for it in agreed.values()), default=0),
        "left_out": box.left_out,
    }
    return rows, facts


def _measure_format(
    checkpoint: Checkpoint,
    kind: Format,
    requests: Sequence[Audio],
    num_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, float]:
    on_gpu = device.type == "cuda"
    model = _build(checkpoint, kind, len(requests), device, dtype, graphed=on_gpu)
    seconds = {}
    for name, context in (("trimmed", _TRIMMED), ("full", _FULL)):
        if on_gpu:
            model.capture_for(len(requests), context)
        model.transcribe(requests, context, min(_WARM_UP_TOKENS, num_tokens))
        seconds[name] = _time(model, requests, context, num_tokens)
    return {
        "s, trimmed": seconds["trimmed"],
        "s, full": seconds["full"],
        "weights MiB": model.weight_bytes / _MIB,
        "slot MiB": slot_bytes(model.dims, model.kv_dtype) / _MIB,
    }


def _time(
    model: DirectModel, requests: Sequence[Audio], context: Positions, num_tokens: int
) -> float:
    return shortest_seconds(lambda: model.transcribe(requests, context, num_tokens))


def _build(
    checkpoint: Checkpoint,
    kind: Format,
    num_rows: int,
    device: torch.device,
    dtype: torch.dtype,
    *,
    graphed: bool,
) -> DirectModel:
    settings = ModelSettings(weights=kind.weights, kv_dtype=kind.kv_dtype, graphed=graphed)
    return DirectModel(checkpoint, settings, num_rows=num_rows, device=device, dtype=dtype)


def _words(kind: Format, dtype: torch.dtype, device: torch.device) -> tuple[str, str]:
    """What weights and caches are kept in."""
    caches = resolve_kv_dtype(kind.kv_dtype, dtype, device)
    return (
        dtype_name(dtype) if kind.weights == "auto" else kind.weights,
        dtype_name(caches) if kind.kv_dtype == "auto" else kind.kv_dtype,
    )


def _up_to(eot: int, tokens: tuple[int, ...]) -> tuple[int, ...]:
    """`tokens` with the first `eot`, which is a choice too, as the last."""
    return tokens[: tokens.index(eot) + 1] if eot in tokens else tokens
