"""Engines whose steps run as on a GPU: padded, from the slots' own tensors, a step ahead.

On a processor launches are over when they return, and a recorder in place of CUDA's runs the
program again on the graph's own inputs. All else is what a GPU runs.
"""

from dataclasses import replace
from pathlib import Path

import torch

from engine.assembly import Engine
from engine.config import Attention, EngineConfig
from engine.model.checkpoint import load_checkpoint
from engine.model.whisper import Whisper
from engine.runtime.caches import SlotCaches
from engine.runtime.device_assembly import assemble_device_runner
from engine.runtime.graphs import GraphRunner
from engine.runtime.sampling import DecodingRules
from tests.support.engines import GREEDY, load_engine

CPU = torch.device("cpu")


def device_engine(
    path: Path,
    config: EngineConfig = GREEDY,
    *,
    attention: Attention = "sdpa",
    dtype: torch.dtype = torch.float32,
    kv_dtype: torch.dtype | None = None,
    fused: bool = False,
    graphs: GraphRunner | None = None,
) -> Engine:
    """The engine of `load_engine`, its runner replaced by a GPU's on the CPU."""
    config = config.resolve("cpu")
    checkpoint = load_checkpoint(path)
    model = Whisper.from_checkpoint(checkpoint, dtype=dtype, device=CPU)
    caches = SlotCaches.allocate(
        checkpoint.dims,
        config.num_slots,
        dtype=kv_dtype or dtype,
        device=CPU,
        encoder_dtype=dtype if config.partial_context == "incremental" else None,
    )
    rules = DecodingRules.build(
        checkpoint.generation, checkpoint.tokenizer, checkpoint.dims.n_vocab, CPU
    )
    runner = assemble_device_runner(
        model, caches, rules, attention, fused=fused, time=None, graphs=graphs
    )
    return replace(load_engine(path, config), runner=runner)
