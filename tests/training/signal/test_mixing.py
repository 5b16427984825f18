from pathlib import Path

import numpy as np
import pytest
import torch

from engine.audio.units import samples_from_seconds
from tests.support.recipe import tone_batch
from tests.support.tone_speech import write_tone_shard
from training.corpus import Sources, find_utterances
from training.data.batches import Batch, make_batch
from training.data.samples import Piece, Sample
from training.data.targets import Target
from training.signal.mixing import Mixer, place_pieces

CPU = torch.device("cpu")
NOTHING = Target((1,), (1,), ((-1, -1),), (True,), (), ())


def one_piece(directory: Path, speed: float) -> tuple[Batch, np.ndarray]:
    write_tone_shard(directory / "shard-00000", ["Hello there."])
    (located,), _ = find_utterances(Sources(directory, (), directory / "decoded"))
    piece = Piece(located, 0, 6_000, speed, 0.5, 1_000)
    batch = make_batch(samples_from_seconds(1.2), [(Sample(18_000, (piece,), ()), NOTHING)], 0)
    return batch, located.samples(0, 6_000) / 32768


def test_a_piece_lies_at_its_place_at_its_gain(tmp_path: Path) -> None:
    batch, source = one_piece(tmp_path, 1.0)
    (wave,) = place_pieces(batch).numpy()
    assert wave[1_000:7_000] == pytest.approx(source * 0.5, abs=1e-6)
    assert not wave[:1_000].any()
    assert not wave[7_000:].any()


def test_a_faster_piece_is_shorter_and_higher(tmp_path: Path) -> None:
    batch, source = one_piece(tmp_path, 1.25)
    (wave,) = place_pieces(batch).numpy()
    assert wave[1_000:5_800].any()
    assert not wave[5_800:].any()
    assert wave[1_400] == pytest.approx(source[500] * 0.5, abs=1e-4)


def test_augmented_audio_is_within_full_scale_and_silent_behind_its_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    mixer = Mixer(CPU)
    for seed in range(2):
        batch = tone_batch(tmp_path, rows=6, seed=seed)
        waves = mixer.mix(batch)
        assert waves.shape == (6, batch.context)
        assert torch.isfinite(waves).all()
        assert waves.abs().max() <= 1
        for wave, length in zip(waves, batch.lengths.tolist(), strict=True):
            assert not wave[length:].any()


def test_without_augmentation_the_same_batch_is_always_the_same(tmp_path: Path) -> None:
    mixer = Mixer(CPU)
    batch = tone_batch(tmp_path)
    assert torch.equal(mixer.mix(batch, augment=False), place_pieces(batch))
    assert not torch.equal(mixer.mix(batch), mixer.mix(batch))


def test_a_sample_without_speech_mostly_has_a_sound(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows = [(Sample(16_000, (), ()), NOTHING)] * 60
    batch = make_batch(samples_from_seconds(1.2), rows, 0)
    loudness = Mixer(CPU).mix(batch).abs().amax(dim=1)
    assert 1 <= (loudness == 0).sum() <= 20
    assert (loudness > 0.01).sum() > 30
