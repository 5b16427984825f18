"""Puts the runner of a GPU together: back ends, kernels and graphs, as far as they are there."""

import importlib
import logging
from typing import Any

from engine.config import Attention, EngineConfig
from engine.model.ops import PLAIN, fused_ops
from engine.model.whisper import Whisper
from engine.runtime.attention_choice import Timer, choose_attention, cuda_timer
from engine.runtime.buckets import shapes_to_capture
from engine.runtime.caches import SlotCaches
from engine.runtime.decode_ends import PLAIN_ENDS, fused_ends
from engine.runtime.device_runner import DeviceRunner
from engine.runtime.features import SlotFeatures
from engine.runtime.graphs import CudaRecorder, GraphRunner, capture_all
from engine.runtime.programs import Programs
from engine.runtime.sampling import DecodingRules, fused_choice, plain_choice

logger = logging.getLogger(__name__)


def build_device_runner(
    model: Whisper, caches: SlotCaches, rules: DecodingRules, config: EngineConfig
) -> DeviceRunner:
    """A runner on a CUDA device with every graph captured.

    Raises ConfigError for what this machine lacks.
    """
    fused = has_triton()
    if not fused:
        logger.info("Triton is not installed: plain torch in place of fused kernels")
    graphs = None if config.cuda_graphs == "off" else GraphRunner(CudaRecorder())
    runner = assemble_device_runner(
        model, caches, rules, config.attention, fused=fused, time=cuda_timer, graphs=graphs
    )
    if graphs is not None:
        capture_all(
            graphs,
            shapes_to_capture(config.max_batch, extends=config.partial_context == "incremental"),
            runner.capture,
        )
    return runner


def assemble_device_runner(
    model: Whisper,
    caches: SlotCaches,
    rules: DecodingRules,
    attention: Attention,
    *,
    fused: bool,
    time: Timer | None,
    graphs: GraphRunner | None,
) -> DeviceRunner:
    """The runner around its parts, nothing captured yet.

    `fused` takes Triton's kernels; `time` lets "auto" measure the back ends that are there.
    """
    programs = Programs(
        model,
        caches,
        rules,
        choose_attention(attention, model.dims, caches, model.encoder.conv1.weight.dtype, time),
        fused_ops() if fused else PLAIN,
        fused_choice(rules) if fused else plain_choice(rules),
        fused_ends() if fused else PLAIN_ENDS,
    )
    log_mel: Any = importlib.import_module(
        "engine.kernels.log_mel" if fused else "engine.kernels.plain_log_mel"
    )
    features = SlotFeatures(len(caches.lengths), model.dims.n_mels, caches.tokens.device, log_mel)
    return DeviceRunner(model, caches, programs, features, rules.languages.tolist(), graphs)


def has_triton() -> bool:
    """Whether kernels can be compiled or interpreted here."""
    try:
        importlib.import_module("triton")
    except ImportError:
        return False
    return True
