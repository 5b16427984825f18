from itertools import islice
from pathlib import Path

import pytest
import torch

from engine.audio.units import samples_from_seconds
from tests.support.recipe import make_tokenizer, tone_sources
from training.corpus import Sources
from training.data.feeder import FeedPlan, feed
from training.errors import RecipeError


def plan(directory: Path, seed: int = 1) -> FeedPlan:
    return FeedPlan(
        tone_sources(directory),
        make_tokenizer(directory / "tokenizer"),
        samples_from_seconds(12),
        seed,
    )


def test_batches_come_without_end_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one, two = (list(islice(feed(plan(tmp_path), workers=0), 6)) for _ in range(2))
    other = list(islice(feed(plan(tmp_path, seed=2), workers=0), 6))
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(one, two, strict=True))
    assert not all(torch.equal(a.lengths, b.lengths) for a, b in zip(one, other, strict=False))
    assert all(len(batch.lengths) * batch.context <= samples_from_seconds(60) for batch in one)


def test_a_process_of_its_own_makes_batches(tmp_path: Path) -> None:
    batch = next(feed(plan(tmp_path), workers=1))
    assert len(batch.lengths) >= 2


def test_without_speech_there_is_nothing_to_feed(tmp_path: Path) -> None:
    nothing = Sources(tmp_path / "none", (), tmp_path / "decoded")
    empty = FeedPlan(nothing, make_tokenizer(tmp_path), samples_from_seconds(12), 1)
    with pytest.raises(RecipeError, match="run `speech` first"):
        next(feed(empty, workers=0))
