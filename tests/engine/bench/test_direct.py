"""The model without a scheduler: what it says is what an engine says."""

from functools import cache

import numpy as np
import pytest
import torch

from engine.audio.units import MAX_WINDOW_POSITIONS, SAMPLE_RATE
from engine.bench.direct import (
    DirectModel,
    ModelSettings,
    free_memory,
    made_up_windows,
    record_eagerly,
    shortest_seconds,
    timer_of,
)
from engine.bench.random_checkpoint import random_checkpoint
from engine.events import UtteranceOptions
from engine.model.checkpoint import Checkpoint, load_checkpoint
from engine.runtime.buckets import DecodeShape
from tests.support.clips import REPOSITORY, TWO_SENTENCES, read_clip
from tests.support.engines import Audio, decode_together, load_engine, tokens_of
from tests.support.model_dims import small_dims

CPU = torch.device("cpu")
EMBEDDED = REPOSITORY / "engine" / "embedded"


@cache
def embedded() -> Checkpoint:
    return load_checkpoint(EMBEDDED)


def windows() -> list[Audio]:
    clip = read_clip(TWO_SENTENCES)
    return [clip[: 2 * SAMPLE_RATE], clip[-3 * SAMPLE_RATE :]]


def direct(settings: ModelSettings, checkpoint: Checkpoint | None = None) -> DirectModel:
    return DirectModel(
        checkpoint or embedded(), settings, num_rows=2, device=CPU, dtype=torch.float32
    )


def small() -> Checkpoint:
    dims = small_dims(n_mels=80, n_audio_state=64, n_text_state=64, n_vocab=2200, n_text_ctx=64)
    return random_checkpoint("small", device=CPU, dtype=torch.float32, dims=dims)


def test_it_says_what_an_engine_says_and_then_goes_on() -> None:
    options = UtteranceOptions(language="en", interim_results=False, context="full")
    expected = [tokens_of(it) for it in decode_together(load_engine(EMBEDDED), windows(), options)]
    model = direct(ModelSettings(graphed=False))
    said = model.transcribe(windows(), MAX_WINDOW_POSITIONS, 24)
    assert [len(tokens) for tokens in said] == [24, 24]
    assert [list(tokens[: tokens.index(model.eot)]) for tokens in said] == expected
    assert min(map(len, expected)) > 3


def test_graphs_and_their_absence_say_the_same() -> None:
    model = direct(ModelSettings())
    model.capture_for(2, MAX_WINDOW_POSITIONS)
    graphed = model.transcribe(windows(), MAX_WINDOW_POSITIONS, 6)
    plain = direct(ModelSettings(graphed=False)).transcribe(windows(), MAX_WINDOW_POSITIONS, 6)
    assert graphed == plain


def test_a_shape_can_be_replayed_on_its_own_only_with_graphs() -> None:
    model = direct(ModelSettings(), small())
    shape = DecodeShape(2, 256)
    model.capture(shape)
    slots = torch.tensor([0, 1])
    (chosen,) = model.replay(shape, (slots,))
    assert chosen.shape == (2, 2)
    assert model.caches.lengths[slots].tolist() == [2, 2]
    with pytest.raises(ValueError, match="without graphs"):
        direct(ModelSettings(graphed=False), small()).replay(shape, (slots,))


def test_choices_behind_what_it_said_itself_are_what_it_said() -> None:
    model = direct(ModelSettings(graphed=False))
    window = windows()[1]
    (said,) = model.transcribe([window], MAX_WINDOW_POSITIONS, 8)
    assert model.choices(window, MAX_WINDOW_POSITIONS, said) == said


def test_after_a_difference_choices_go_on_behind_what_was_given() -> None:
    model = direct(ModelSettings(graphed=False))
    window = windows()[1]
    (said,) = model.transcribe([window], MAX_WINDOW_POSITIONS, 8)
    other = next(token for token in range(300, 400) if token != said[2])
    given = (*said[:2], other, *said[3:])
    chosen = model.choices(window, MAX_WINDOW_POSITIONS, given)
    assert chosen[:3] == said[:3]  # the third was chosen before the other was seen
    # What is chosen behind each beginning of `given` does not depend on how it was cut.
    for length in range(3, len(given)):
        assert model.choices(window, MAX_WINDOW_POSITIONS, given[:length]) == chosen[:length]


def test_weights_are_counted_as_they_are_kept() -> None:
    plain = direct(ModelSettings(graphed=False)).weight_bytes
    assert plain > sum(it.nbytes for it in embedded().weights.values())  # keys get a bias
    int8, int4 = (
        direct(ModelSettings(weights=weights, graphed=False)).weight_bytes
        for weights in ("int8", "int4")
    )
    assert int4 < int8 < 0.5 * plain


def test_memory_is_counted_by_devices_alone() -> None:
    assert direct(ModelSettings(graphed=False), small()).peak_bytes is None


def test_a_replay_without_graphs_runs_the_program_on_the_same_tensors() -> None:
    number = torch.ones(1)
    replay, (doubled,) = record_eagerly(lambda it: (2 * it,), (number,))
    number.fill_(3.0)
    replay()
    assert doubled.tolist() == [6.0]


def test_short_calls_are_timed_several_times() -> None:
    calls: list[int] = []
    assert 0.0 < shortest_seconds(lambda: calls.append(sum(range(100_000)))) < 0.3
    assert len(calls) > 1
    before = len(calls)
    assert timer_of(CPU)(lambda: calls.append(0)) >= 0.0
    assert len(calls) > before + 1


def test_windows_are_made_up_each_another() -> None:
    first, second = made_up_windows(2, 1.5)
    assert len(first) == len(second) == 1.5 * SAMPLE_RATE
    assert not np.array_equal(first, second)
    free_memory(CPU)
