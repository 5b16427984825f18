from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.recipe import tiny_dims
from training.errors import RecipeError
from training.model.state import STATE_FILE, RunState, load_state, save_state

CPU = torch.device("cpu")
STATE = RunState(
    dims=tiny_dims(60),
    weights={"a": torch.ones(2)},
    average={"a": torch.zeros(2)},
    optimiser={"muon": {"state": {0: {"momentum": torch.ones(1)}}}},
    step=12,
    seconds_trained=3.5,
    seconds_heard=100.0,
    device="one H200",
    base=None,
    people={("LibriSpeech", "CC BY 4.0", 5): 5.4, ("VCTK", "ODC-By 1.0", 2): 0.3},
)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    save_state(tmp_path / "run", STATE)
    loaded = load_state(tmp_path / "run", CPU)
    assert loaded is not None
    assert loaded.dims == STATE.dims
    assert torch.equal(loaded.weights["a"], torch.ones(2))
    assert (loaded.step, loaded.seconds_trained, loaded.seconds_heard) == (12, 3.5, 100.0)
    assert (loaded.device, loaded.base, loaded.people) == ("one H200", None, STATE.people)


def test_a_later_state_replaces_an_earlier_one_and_nothing_else_stays(tmp_path: Path) -> None:
    save_state(tmp_path, STATE)
    save_state(tmp_path, replace(STATE, step=13))
    loaded = load_state(tmp_path, CPU)
    assert loaded is not None
    assert loaded.step == 13
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def test_a_run_that_has_not_begun_has_no_state_and_another_file_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path, CPU) is None
    torch.save({"dims": {}}, tmp_path / STATE_FILE)
    with pytest.raises(RecipeError, match="expected the state of a run"):
        load_state(tmp_path, CPU)
