import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.model.checkpoint import load_checkpoint
from tests.support.recipe import make_tokenizer, tiny_dims
from tests.training.export.test_card import FACTS
from tests.training.model.test_state import STATE
from training.errors import RecipeError
from training.export.checkpoint import Traits, export_run
from training.model.network import TrainableWhisper
from training.model.state import RunState, save_state
from training.vocabulary import load_tokens


@pytest.fixture
def run(tmp_path: Path) -> RunState:
    tokens = load_tokens(make_tokenizer(tmp_path / "tokenizer"))
    network = TrainableWhisper(tiny_dims(tokens.n_vocab))
    weights = network.state_dict()
    average = {name: torch.full_like(tensor, 0.25) for name, tensor in weights.items()}
    state = replace(STATE, dims=network.dims, weights=weights, average=average)
    save_state(tmp_path / "run", state)
    return state


def export(directory: Path, traits: Traits | None = None, others: Sequence[Path] = ()) -> Path:
    return export_run(
        directory / "run",
        directory / "tokenizer",
        directory / "export",
        traits=traits or Traits(),
        facts=FACTS,
        measurements={},
        others=others,
    )


def test_the_engine_loads_the_averaged_weights_in_half_precision(
    tmp_path: Path, run: RunState
) -> None:
    checkpoint = load_checkpoint(export(tmp_path))
    assert checkpoint.dims == run.dims
    assert {tensor.dtype for tensor in checkpoint.weights.values()} == {torch.float16}
    assert all(bool((tensor == 0.25).all()) for tensor in checkpoint.weights.values())


def test_traits_and_settings_are_read_as_they_were_meant(tmp_path: Path, run: RunState) -> None:
    meant = Traits(20, carries_text=True, timestamps=True, incremental_partials=True)
    checkpoint = load_checkpoint(export(tmp_path, meant))
    traits, generation = checkpoint.traits, checkpoint.generation
    assert (traits.trimmed_context, traits.max_window) == (True, 20 * 16_000)
    assert (traits.carries_text, traits.timestamps, traits.incremental_partials) == (True,) * 3
    assert generation.alignment_heads == ((1, 0), (1, 1))
    assert generation.language == "en"
    assert checkpoint.tokenizer.no_speech in generation.suppress_tokens
    assert checkpoint.tokenizer.eot not in generation.suppress_tokens


def test_the_files_are_those_that_runtimes_ask_for(tmp_path: Path, run: RunState) -> None:
    directory = export(tmp_path)
    assert {path.name for path in directory.iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((directory / "config.json").read_text())
    assert config["decoder_start_token_id"] == config["eos_token_id"] + 1


def test_a_run_that_has_not_begun_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="run `train` first"):
        export(tmp_path)


def test_several_points_of_a_run_become_their_mean(tmp_path: Path, run: RunState) -> None:
    first = export(tmp_path).rename(tmp_path / "first")
    later = {name: torch.full_like(tensor, 0.75) for name, tensor in run.average.items()}
    save_state(tmp_path / "run", replace(run, average=later))
    directory = export(tmp_path, others=[first, first, first])
    weights = load_checkpoint(directory).weights
    assert all(bool((tensor == 0.375).all()) for tensor in weights.values())
    assert "the mean of 4 points of the run" in (directory / "README.md").read_text()
