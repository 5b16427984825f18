"""Batches without end, made by processes of their own while a device computes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from engine.audio.units import Samples
from training.corpus import Sources, find_utterances
from training.data.batches import Batch, make_batch
from training.data.buckets import BatchQueue
from training.data.samples import Sample, SampleMaker
from training.data.targets import Target, TargetMaker
from training.errors import RecipeError
from training.vocabulary import load_tokens

# Shards that are synthesised while training goes on are found after so many samples.
_LOOK_AGAIN_AFTER: Final = 20_000
_BATCHES_AHEAD: Final = 4


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """What is fed: `budget` is samples of audio in a batch, padding included."""

    sources: Sources
    tokenizer: Path
    budget: Samples
    seed: int


class Feed(IterableDataset[Batch]):
    """The batches of one plan; every worker draws others."""

    def __init__(self, plan: FeedPlan) -> None:
        super().__init__()
        self._plan = plan

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        if info is not None:
            torch.set_num_threads(1)
        plan = self._plan
        rng = Random(f"{plan.seed}/{0 if info is None else info.id}")
        tokens = load_tokens(plan.tokenizer)
        maker = SampleMaker(rng)
        targets = TargetMaker(tokens, rng)
        queue: BatchQueue[tuple[Sample, Target]] = BatchQueue(plan.budget, rng)
        while True:
            maker.know(*find_utterances(plan.sources, maker.known))
            if not maker:
                raise RecipeError(f"{plan.sources.shards}: expected shards, run `speech` first")
            for _ in range(_LOOK_AGAIN_AFTER):
                sample = maker.draw()
                row = sample, targets.target(sample, maker.earlier_text())
                if (full := queue.add(row, sample.length)) is not None:
                    yield make_batch(*full, tokens.eot)


def feed(plan: FeedPlan, *, workers: int, pin: bool = False) -> Iterator[Batch]:
    """Batches of `plan`, made by `workers` processes, or as they are asked for with none.

    With `pin` in memory that a device copies from while it computes.
    """
    loader: DataLoader[Batch] = DataLoader(
        Feed(plan),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_BATCHES_AHEAD if workers else None,
        multiprocessing_context="spawn" if workers else None,
        pin_memory=pin,
    )
    return iter(loader)
