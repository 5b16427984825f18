from random import Random

import pytest

from engine.audio.units import MAX_WINDOW_SAMPLES, SAMPLE_RATE, SAMPLES_PER_POSITION, Samples
from training.data.buckets import CONTEXTS, BatchQueue, context_for, rows_for


def test_contexts_are_whole_positions_and_hold_up_to_30_s() -> None:
    assert list(CONTEXTS) == sorted(CONTEXTS)
    assert CONTEXTS[-1] == MAX_WINDOW_SAMPLES
    assert all(context % SAMPLES_PER_POSITION == 0 for context in CONTEXTS)


def test_the_shortest_context_that_fits_is_taken() -> None:
    assert context_for(1) == CONTEXTS[0]
    assert context_for(CONTEXTS[3]) == CONTEXTS[3]
    assert context_for(CONTEXTS[3] + 1) == CONTEXTS[4]
    with pytest.raises(ValueError, match="at most"):
        context_for(MAX_WINDOW_SAMPLES + 1)


def test_batches_of_a_context_always_have_the_same_shape() -> None:
    budget = Samples(24 * SAMPLE_RATE)
    queue: BatchQueue[int] = BatchQueue(budget, Random(1), full_context_share=0.2)
    shapes = set()
    batched = []
    for number in range(2000):
        if (full := queue.add(number, 16_000 + number * 37 % 100_000)) is not None:
            context, rows = full
            shapes.add((context, len(rows)))
            batched += rows
    assert len(batched) == len(set(batched)) > 1900
    trimmed = {shape for shape in shapes if shape[0] < MAX_WINDOW_SAMPLES}
    assert all(rows == rows_for(context, budget) for context, rows in trimmed)
    assert shapes - trimmed == {(MAX_WINDOW_SAMPLES, 2)}
