"""Which attention back end serves which kind of step: as asked, or as measured on this device.

Which is fastest depends on the device, its libraries and the shapes, so "auto" tries what is
there on this model's own shapes, a second in all, and says in the log what it took.
"""

import logging
from collections.abc import Callable
from typing import Final

import torch

from engine.config import Attention
from engine.errors import ConfigError
from engine.model.backends import AttentionBackend, load_backend
from engine.model.dims import ModelDims
from engine.runtime.caches import SlotCaches
from engine.runtime.programs import AttentionPlan

logger = logging.getLogger(__name__)

# "eager" is the plain twin: it needs the memory of all scores, and is there to be asked for.
_CANDIDATES: Final = ("flash", "triton", "sdpa")
_WARM_UPS: Final = 3
_REPEATS: Final = 10
# What most steps look like: some eight seconds of speech, a sentence so far, a draft of it.
_ROWS: Final = 32
_CONTEXT: Final = 448
_TOKENS: Final = 24
_WIDTHS: Final = {"prefill": 8, "verify": 32, "decode": 1}

# Seconds that a call takes on the device.
Timer = Callable[[Callable[[], object]], float]


def choose_attention(
    asked: Attention, dims: ModelDims, caches: SlotCaches, dtype: torch.dtype, time: Timer | None
) -> AttentionPlan:
    """The plan for a model of `dims` in `dtype` over `caches`.

    Raises ConfigError where what was asked for is not to be had. Without a `time` nothing is
    measured, and "auto" is SDPA.
    """
    kv_dtype = caches.layers[0].self_attn.keys.dtype
    if asked != "auto":
        backend = load_backend(asked, dtype, kv_dtype)
        return AttentionPlan(backend, backend, backend, backend)
    if time is None:
        return choose_attention("sdpa", dims, caches, dtype, None)
    backends = []
    for name in _CANDIDATES:
        try:
            backends.append(load_backend(name, dtype, kv_dtype))
        except ConfigError as exc:
            logger.info("%s", exc)
    encode = _fastest("encode", backends, lambda it: _encode(it, dims, dtype, caches), time)
    prefill, verify, decode = (
        _fastest(use, backends, _over_slots(width, dims, dtype, caches), time)
        for use, width in _WIDTHS.items()
    )
    return AttentionPlan(encode, prefill, verify, decode)


def cuda_timer(call: Callable[[], object]) -> float:
    """Seconds per call on the current CUDA device, after a warm-up.

    Within a graph, as in service: what Python takes to launch does not count. A call that cannot
    be captured is timed as it is.
    """
    for _ in range(_WARM_UPS):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for _ in range(_REPEATS):
                call()
        replay: Callable[[], object] = graph.replay
        replay()
    except RuntimeError as exc:
        logger.info("timed without a graph: %s", exc)

        def replay() -> None:
            for _ in range(_REPEATS):
                call()

    started = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    stopped = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    started.record()
    replay()
    stopped.record()
    stopped.synchronize()
    return float(started.elapsed_time(stopped)) / 1000 / _REPEATS


def _fastest(
    use: str,
    backends: list[AttentionBackend],
    call_of: Callable[[AttentionBackend], Callable[[], object]],
    time: Timer,
) -> AttentionBackend:
    seconds: dict[str, float] = {}
    for backend in backends:
        try:
            seconds[backend.name] = time(call_of(backend))
        except torch.AcceleratorError:
            raise
        except Exception as exc:  # noqa: BLE001 - any library's way to say that it cannot
            logger.warning("attention back end %s cannot %s here: %s", backend.name, use, exc)
    if not seconds:
        raise ConfigError(f"attention: none of {', '.join(_CANDIDATES)} can {use} on this device")
    best = min(seconds, key=seconds.__getitem__)
    tried = ", ".join(f"{name} {1e6 * value:.0f} µs" for name, value in seconds.items())
    logger.info("attention for %s: %s (%s)", use, best, tried)
    return next(it for it in backends if it.name == best)


def _encode(
    backend: AttentionBackend, dims: ModelDims, dtype: torch.dtype, caches: SlotCaches
) -> Callable[[], object]:
    head_dim = dims.n_audio_state // dims.n_audio_head
    shape = (8, _CONTEXT, 3, dims.n_audio_head, head_dim)
    query, key, value = torch.randn(shape, dtype=dtype, device=caches.tokens.device).unbind(2)
    return lambda: backend.encode(query, key, value)


def _over_slots(
    width: int, dims: ModelDims, dtype: torch.dtype, caches: SlotCaches
) -> Callable[[AttentionBackend], Callable[[], object]]:
    """One layer's self- and cross-attention of `width` tokens a row.

    What stands in the caches does not matter, only how much of them is read; nobody has a slot yet.
    """
    device = caches.tokens.device
    head_dim = dims.n_text_state // dims.n_text_head
    shape = (_ROWS, width, 3, dims.n_text_head, head_dim)
    query, key, value = torch.randn(shape, dtype=dtype, device=device).unbind(2)
    layer = caches.layers[0]
    # Different slots, as in service: the same one again would be read from the cache of the chip.
    slots = torch.arange(_ROWS, device=device) % len(caches.lengths)
    tokens = torch.full((_ROWS,), _TOKENS, device=device)
    positions = torch.full((_ROWS,), _CONTEXT, device=device)

    def call_of(backend: AttentionBackend) -> Callable[[], object]:
        def call() -> None:
            own, cross = layer.self_attn, layer.cross_attn
            backend.slot_attention(
                query,
                own.keys,
                own.values,
                slots,
                tokens,
                causal=True,
                most=dims.n_text_ctx,
                key_scales=own.key_scales,
                value_scales=own.value_scales,
                new_keys=key,
                new_values=value,
            )
            backend.slot_attention(
                query,
                cross.keys,
                cross.values,
                slots,
                positions,
                causal=False,
                most=512,
                key_scales=cross.key_scales,
                value_scales=cross.value_scales,
            )

        return call

    return call_of
