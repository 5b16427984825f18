from pathlib import Path

import numpy as np
import torch

from engine.audio.units import SAMPLES_PER_POSITION, samples_from_seconds
from tests.support.recipe import tone_batch
from tests.support.tone_speech import write_tone_shard
from training.corpus import Sources, find_utterances
from training.data.batches import make_batch
from training.data.buckets import TOKEN_STEP
from training.data.samples import Piece, Sample
from training.data.targets import IGNORED, Target, WordTarget


def target(text: int, *words: WordTarget) -> Target:
    steps = (1,) * text
    return Target(steps, steps, ((2, 9),) * text, (False,) * text, (3, 4), words)


def test_rows_of_unequal_length_are_padded_to_a_step_of_tokens(tmp_path: Path) -> None:
    rows = [(Sample(9_000, (), ()), target(3)), (Sample(8_000, (), ()), target(18))]
    batch = make_batch(samples_from_seconds(1.2), rows, padding=99)
    assert batch.inputs.shape == batch.labels.shape == (2, 2 * TOKEN_STEP)
    assert batch.inputs[0].tolist() == [1] * 3 + [99] * 29
    assert (batch.labels[0] != IGNORED).sum() == 3
    assert batch.certain[0].tolist() == [False] * 3 + [True] * 29
    assert batch.spans[0, 2].tolist() == [2, 9]
    assert batch.spans[0, 3].tolist() == [-1, -1]
    assert batch.lengths.tolist() == [9_000, 8_000]
    assert batch.character_lengths.tolist() == [2, 2]


def test_words_keep_a_little_slack_and_stay_within_the_context(tmp_path: Path) -> None:
    end = samples_from_seconds(1.2) // SAMPLES_PER_POSITION
    words = (
        WordTarget((10, 20), (1, 2)),
        WordTarget((0, end), (3,)),
        WordTarget((5, 6), (1,) * 30),  # more characters than any word has
    )
    batch = make_batch(samples_from_seconds(1.2), [(Sample(9_000, (), ()), target(2, *words))], 0)
    assert batch.words.tolist() == [[0, 8, 22], [0, 0, end]]
    assert batch.word_lengths.tolist() == [2, 1]
    assert batch.word_characters.shape == (2, 24)


def test_a_batch_without_words_has_empty_tables(tmp_path: Path) -> None:
    batch = make_batch(samples_from_seconds(1.2), [(Sample(9_000, (), ()), target(1))], 0)
    assert batch.words.shape == (0, 3)
    assert batch.pieces.shape == (0, 6)


def test_the_audio_of_all_pieces_lies_behind_each_other(tmp_path: Path) -> None:
    write_tone_shard(tmp_path / "shard-00000", ["Hello there.", "Bye."])
    located, other = find_utterances(Sources(tmp_path, (), tmp_path / "decoded"))[0]
    first = Sample(9_000, (Piece(located, 100, 4_000, 1.0, 0.5, 300),), ())
    second = Sample(9_000, (Piece(other, 0, 2_000, 1.1, 1.0, 0), Piece(other, 0, 5, 1, 1, 0)), ())
    batch = make_batch(samples_from_seconds(1.2), [(first, target(1)), (second, target(1))], 0)
    table = [[0, 0, 4_000, 1.0, 0.5, 300], [1, 4_000, 2_000, 1.1, 1.0, 0]]
    assert batch.pieces.tolist() == table
    assert np.array_equal(batch.audio[:4_000].numpy(), located.samples(100, 4_000))
    assert np.array_equal(batch.audio[4_000:6_000].numpy(), other.samples(0, 2_000))


def test_what_ctc_reads_on_the_host_stays_there(tmp_path: Path) -> None:
    batch = tone_batch(tmp_path)
    moved = batch.to(torch.device("meta"))
    assert moved.audio.is_meta
    assert not moved.character_lengths.is_meta
    assert moved.context == batch.context
