"""Builds an engine from its configuration: what "auto" means on this machine, then the parts."""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from engine.audio.units import SAMPLE_RATE
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.events import ModelInfo, Task
from engine.kernels.plain_attention import FLOAT8
from engine.metrics import EngineMetrics
from engine.model.checkpoint import Checkpoint, load_checkpoint
from engine.model.hub import resolve_model
from engine.model.quantized import quantize_weights
from engine.model.whisper import Whisper
from engine.runtime.caches import SlotCaches, slot_bytes
from engine.runtime.device_assembly import build_device_runner
from engine.runtime.features import feature_bytes
from engine.runtime.pending import StepRunner
from engine.runtime.runner import Runner
from engine.runtime.sampling import DecodingRules
from engine.scheduling.contexts import CONTEXT_BUCKETS, ContextPolicy
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import (
    DecodeStep,
    EncodeRow,
    EncodeStep,
    PrefillRow,
    PrefillStep,
    Sampling,
)
from engine.scheduling.utterance import DecodeSetup

_CPU_CACHE_BYTES: Final = 2 << 30  # a laptop has it to spare; more only helps past 64 slots
_GPU_CACHE_SHARE: Final = 0.6  # of the memory left after the weights; the rest is activations
_MOST_SLOTS: Final = {"cpu": 64, "cuda": 1024}
_FEWEST_SLOTS: Final = 4
_PROMPT_TOKENS: Final = 64  # of a prompt to warm up with: longer than any captured feed
_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts that the loop drives."""

    info: ModelInfo
    scheduler: Scheduler
    runner: StepRunner
    metrics: EngineMetrics


def build_engine(config: EngineConfig) -> Engine:
    """Resolve, load and warm up. Raises ConfigError and CheckpointError."""
    started = time.monotonic()
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    cache_dir = None if config.cache_dir is None else Path(config.cache_dir)
    path = resolve_model(config.model, device=device.type, cache_dir=cache_dir)
    checkpoint = load_checkpoint(path, cache_dir=cache_dir)
    engine = assemble(checkpoint, config, device=device, dtype=dtype)
    warm_up(engine.runner, checkpoint)
    logger.info(
        "model %s on %s in %s, loaded and warm in %.1f s",
        checkpoint.name,
        device,
        str(dtype).removeprefix("torch."),
        time.monotonic() - started,
    )
    return engine


def resolve_device(name: str) -> torch.device:
    """The device that `name` means here; raises ConfigError for a GPU that is not there."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device: got 'cuda', but torch finds no CUDA device; accepted is cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format that `name` means here.

    "auto" is half precision where the hardware multiplies it natively: 2.5 times the encoder's
    speed at the same word error rate (docs/log.md). Only float32 is token for token exact.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if _multiplies_bfloat16() else torch.float32
    if name == "float16" and device.type == "cpu":
        raise ConfigError("dtype: got 'float16', accepted on a CPU are float32, bfloat16")
    return _DTYPES[name]


def resolve_kv_dtype(name: str, dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The number format of keys and values that `name` means here.

    "auto" is the model's own on a GPU. A processor that multiplies matrices of bfloat16 attends
    in it to one query at a time five times as slowly as in float32 (docs/log.md).
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else dtype
    return FLOAT8 if name == "fp8" else _DTYPES[name]


def prepare_device(device: torch.device) -> None:
    """Set how torch computes on a GPU, for the whole process."""
    if device.type != "cuda":
        return
    # float32 is asked for where exactness is; and sums in half precision may overflow.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    # Its attention makes a plan for each new shape, in service and for too long.
    torch.backends.cuda.enable_cudnn_sdp(False)


def assemble(
    checkpoint: Checkpoint, config: EngineConfig, *, device: torch.device, dtype: torch.dtype
) -> Engine:
    """Put an engine together around a loaded checkpoint."""
    config = config.resolve(device.type, incremental=checkpoint.traits.incremental_partials)
    prepare_device(device)
    dims, tokenizer = checkpoint.dims, checkpoint.tokenizer
    model = Whisper.from_checkpoint(checkpoint, dtype=dtype, device=device)
    if config.weights != "auto":
        quantize_weights(model, config.weights)
    kv_dtype = resolve_kv_dtype(config.kv_dtype, dtype, device)
    encoder_dtype = dtype if config.partial_context == "incremental" else None
    num_slots = config.num_slots or _affordable_slots(
        dims.n_mels, slot_bytes(dims, kv_dtype, encoder_dtype), device
    )
    caches = SlotCaches.allocate(
        dims, num_slots, dtype=kv_dtype, device=device, encoder_dtype=encoder_dtype
    )
    rules = DecodingRules.build(checkpoint.generation, tokenizer, dims.n_vocab, device)
    contexts = ContextPolicy.of(config, trained_trimmed=checkpoint.traits.trimmed_context)
    setup = DecodeSetup(config, tokenizer, contexts, checkpoint.traits, dims.n_text_ctx)
    metrics = EngineMetrics(
        device=device.type, dtype=str(dtype).removeprefix("torch."), slots=num_slots
    )
    runner: StepRunner
    if device.type == "cuda":
        runner = build_device_runner(model, caches, rules, config)
    else:
        runner = Runner(model, caches, rules, threads=config.threads or _threads_to_spare())
    # A model that knows English alone has nothing to translate from, whatever tokens it has.
    tasks: tuple[Task, ...] = ("transcribe",)
    if len(tokenizer.languages) > 1:
        tasks = ("transcribe", "translate")
    return Engine(
        ModelInfo(checkpoint.name, tuple(tokenizer.languages), tasks, checkpoint.traits.timestamps),
        Scheduler(setup, num_slots, metrics),
        runner,
        metrics,
    )


def _threads_to_spare() -> int:
    """All cores but one, which the event loop and the detector share."""
    return max(1, (os.cpu_count() or 1) - 1)


def warm_up(runner: StepRunner, checkpoint: Checkpoint) -> None:
    """Run each kind of step once, so that the first session does not pay for first times."""
    slot = SlotHandle(0, 0)
    tokenizer = checkpoint.tokenizer
    prefix = tokenizer.forced_prefix(
        next(iter(tokenizer.languages)), "transcribe", timestamps=False
    )
    quiet = np.zeros(SAMPLE_RATE, dtype=np.float32)
    for context in CONTEXT_BUCKETS:
        runner.launch(EncodeStep((EncodeRow(slot, quiet),), context)).result()
    sampling = Sampling(len(prefix), timestamps=False)
    runner.launch(PrefillStep((PrefillRow(slot, prefix, 0, sampling),))).result()
    runner.launch(DecodeStep((slot,))).result()
    room = checkpoint.dims.n_text_ctx - len(prefix) - 1
    prompted = prefix + (prefix[-1],) * min(_PROMPT_TOKENS, room)
    runner.launch(PrefillStep((PrefillRow(slot, prompted, 0, sampling),))).result()


def _multiplies_bfloat16() -> bool:
    """Whether the processor has bfloat16 products of its own; torch before 2.12 cannot tell."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _affordable_slots(num_mels: int, bytes_per_slot: int, device: torch.device) -> int:
    """As many as there is memory for, up to what is of use."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        budget = int(free * _GPU_CACHE_SHARE)
        bytes_per_slot += feature_bytes(num_mels)
    else:
        budget = _CPU_CACHE_BYTES
    return max(_FEWEST_SLOTS, min(_MOST_SLOTS[device.type], budget // bytes_per_slot))
