import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.recipe import tiny_dims, tone_batch
from training.data.batches import Batch
from training.errors import RecipeError
from training.model.loop import LOG_FILE, RunPlan, Trainer
from training.model.network import TrainableWhisper, exported_weights
from training.model.optimiser import Rates
from training.model.state import load_state

N_VOCAB, NUM_TEXT = 1790, 280
PLAN = RunPlan(
    steps=20,
    run_seconds=None,
    slice_seconds=None,
    log_every=5,
    rates=Rates(0.01, 3e-3),
    seed=1,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def batches(directory: Path) -> Iterator[Batch]:
    """One batch again and again, of short contexts."""
    batch = tone_batch(directory, rows=2)
    return itertools.repeat(
        batch._replace(context=160_000, lengths=batch.lengths.clamp(max=160_000))
    )


def trainer(directory: Path, plan: RunPlan = PLAN, width: int = 32) -> Trainer:
    dims = replace(tiny_dims(N_VOCAB), n_audio_state=width, n_text_state=width)
    return Trainer(directory / "run", dims, plan, [5], NUM_TEXT, "cpu")


def test_the_loss_falls_and_every_line_is_kept(tmp_path: Path) -> None:
    lines = trainer(tmp_path).run(batches(tmp_path))
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert lines[-1]["text"] < lines[0]["text"]
    written = list(map(json.loads, (tmp_path / "run" / LOG_FILE).read_text().splitlines()))
    assert len(written) == 4
    assert written[-1]["heard_h"] > 0


def test_a_slice_ends_with_its_time_and_the_next_goes_on(tmp_path: Path) -> None:
    plan = replace(PLAN, steps=None, run_seconds=4.0, slice_seconds=0.5)
    first = trainer(tmp_path, plan)
    first.run(batches(tmp_path))
    state = load_state(tmp_path / "run", torch.device("cpu"))
    assert state is not None
    assert 0.5 <= state.seconds_trained < 4.0
    second = trainer(tmp_path, plan)
    assert second.step == first.step == state.step > 0
    second.run(batches(tmp_path))
    assert second.step > first.step


def test_a_finished_run_takes_no_further_step(tmp_path: Path) -> None:
    trainer(tmp_path, replace(PLAN, steps=2)).run(batches(tmp_path))
    again = trainer(tmp_path, replace(PLAN, steps=2))
    assert again.run(iter(())) == []
    assert again.step == 2


def test_another_model_cannot_go_on_from_it(tmp_path: Path) -> None:
    trainer(tmp_path, replace(PLAN, steps=1)).run(batches(tmp_path))
    with pytest.raises(RecipeError, match="expected a run of"):
        trainer(tmp_path, width=64)


def test_the_average_follows_the_weights(tmp_path: Path) -> None:
    trainer(tmp_path).run(batches(tmp_path))
    state = load_state(tmp_path / "run", torch.device("cpu"))
    assert state is not None
    name = "decoder.layers.0.fc1.weight"
    assert not torch.equal(state.average[name], state.weights[name])
    assert (state.average[name] - state.weights[name]).norm() < state.weights[name].norm()


def test_a_run_needs_a_length(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="steps or of seconds"):
        replace(PLAN, steps=None).progress(0, 0.0)
    assert PLAN.progress(10, 0.0) == 0.5
    assert replace(PLAN, steps=None, run_seconds=50.0).progress(10, 100.0) == 1.0


def test_a_run_keeps_what_it_began_from_and_whom_it_heard(tmp_path: Path) -> None:
    weights = exported_weights(TrainableWhisper(tiny_dims(N_VOCAB)).state_dict())
    save_file({name: w.contiguous() for name, w in weights.items()}, tmp_path / "model.safetensors")
    first = {("books", "CC0", 5): 1.5}
    begun = replace(PLAN, steps=1, base=tmp_path, people=first)
    (line,) = trainer(tmp_path, replace(begun, log_every=1)).run(batches(tmp_path))
    assert (line["ctc"], line["word_ctc"]) == (0, 0)
    further = replace(PLAN, steps=2, log_every=1, people={("radio", "CC BY 4.0", 2): 0.5})
    (line,) = trainer(tmp_path, further).run(batches(tmp_path))
    assert line["ctc"] == 0  # it goes on as it began, whether it is told so or not
    state = load_state(tmp_path / "run", torch.device("cpu"))
    assert state is not None
    assert (state.base, state.device) == (str(tmp_path), "a CPU")
    assert state.people == first | further.people


def test_a_run_from_nothing_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    trainer(tmp_path, replace(PLAN, steps=1)).run(batches(tmp_path))
    with pytest.raises(RecipeError, match="found one from nothing"):
        trainer(tmp_path, replace(PLAN, base=tmp_path))
