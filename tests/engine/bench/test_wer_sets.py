from pathlib import Path

import numpy as np
import pytest

from engine.audio.units import SAMPLE_RATE
from engine.bench.wer_sets import (
    Audio,
    Recording,
    add_noise,
    copies,
    in_groups,
    over_telephone,
    read_manifest,
    seed_of,
    spread,
)
from engine.errors import AudioError
from tests.support.engines import babble

HEADER = "path\tseconds\ttranscript\tlanguage\tspeaker\tsource\tlicence"


def recording(name: str, source: str = "here") -> Recording:
    return Recording(Path("/sets/read") / name, 2.0, "hello", "en", "anna", source)


def sine(hz: float, seconds: float = 1.0) -> Audio:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def power_of(samples: Audio) -> float:
    return float(np.mean(np.square(samples.astype(np.float64))))


def test_paths_are_relative_to_the_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.tsv"
    manifest.write_text(f'{HEADER}\nread/a.flac\t2.5\tIT\'S "SO"\ten\tanna\tbooks@1\tpublic\n')
    assert read_manifest(manifest) == [
        Recording(tmp_path / "read" / "a.flac", 2.5, 'IT\'S "SO"', "en", "anna", "books@1")
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path\ttranscript\n", "expected the columns seconds, language, speaker, source"),
        ("", "expected the columns path, seconds, transcript"),
        (f"{HEADER}\na.flac\t2.5\thello\n", "line 2: expected path"),
        (f"{HEADER}\na.flac\tlong\thello\ten\tanna\there\tfree\n", "line 2: expected path"),
        (f"{HEADER}\na.flac\t-1\thello\ten\tanna\there\tfree\n", "line 2: expected path"),
    ],
)
def test_a_manifest_that_is_none_is_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    manifest = tmp_path / "manifest.tsv"
    manifest.write_text(text)
    with pytest.raises(AudioError, match=f"manifest.tsv: {reason}"):
        read_manifest(manifest)


def test_a_manifest_that_is_not_there_or_not_text_is_refused_by_name(tmp_path: Path) -> None:
    binary = tmp_path / "binary.tsv"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.tsv", binary):
        with pytest.raises(AudioError, match=f"{path.name}: cannot be read as a manifest"):
            read_manifest(path)


def test_groups_are_in_the_order_in_which_they_appear() -> None:
    some = [recording("b", "two"), recording("a", "one"), recording("c", "two")]
    assert {group: len(members) for group, members in in_groups(some, "source").items()} == {
        "two": 2,
        "one": 1,
    }
    assert [it.group("folder") for it in some] == ["read"] * 3
    assert [it.group("speaker") for it in some] == ["anna"] * 3


def test_a_limit_takes_recordings_from_the_whole_list() -> None:
    some = [recording(str(number)) for number in range(10)]
    assert [it.path.name for it in spread(some, 3)] == ["0", "3", "6"]
    assert spread(some, 10) == spread(some, 11) == some


def test_copies_are_made_where_they_are_asked_for() -> None:
    assert list(copies(None, telephone=False)) == ["as recorded"]
    degraded = copies(10, telephone=True)
    assert list(degraded) == ["as recorded", "noise 10 dB", "telephone"]
    samples = babble(1, seed=1)
    np.testing.assert_array_equal(degraded["as recorded"](samples, 1), samples)
    np.testing.assert_array_equal(degraded["noise 10 dB"](samples, 1), add_noise(samples, 10, 1))
    np.testing.assert_array_equal(degraded["telephone"](samples, 1), over_telephone(samples))


@pytest.mark.parametrize("snr_db", [20.0, 10.0, 0.0])
def test_noise_is_as_far_below_the_speech_as_was_asked(snr_db: float) -> None:
    samples = 0.1 * babble(2, seed=1)
    added = add_noise(samples, snr_db, 5) - samples
    assert 10 * np.log10(power_of(samples) / power_of(added)) == pytest.approx(snr_db, abs=0.2)


def test_noise_is_the_same_in_every_run_and_differs_between_recordings() -> None:
    samples = babble(1, seed=1)
    one, other = seed_of(recording("one.flac")), seed_of(recording("other.flac"))
    np.testing.assert_array_equal(add_noise(samples, 10, one), add_noise(samples, 10, one))
    assert np.abs(add_noise(samples, 10, one) - add_noise(samples, 10, other)).max() > 0


def test_noise_never_clips() -> None:
    loud = sine(300) * 1.9
    noisy = add_noise(loud, -10, 1)
    assert np.abs(noisy).max() == pytest.approx(1.0)


@pytest.mark.parametrize(("hz", "passes"), [(100, False), (400, True), (3000, True), (5000, False)])
def test_a_telephone_line_has_a_band(hz: float, passes: bool) -> None:
    samples = sine(hz)
    kept = power_of(over_telephone(samples)) / power_of(samples)
    assert kept == pytest.approx(1, abs=0.05) if passes else kept < 0.001


def test_a_telephone_line_keeps_speech_in_its_place_and_codes_it_coarsely() -> None:
    samples = sine(1000, seconds=1.00005)  # an odd number of samples
    heard = over_telephone(samples)
    assert len(heard) == len(samples) == 16001
    error = power_of(heard[800:-800] - samples[800:-800]) / power_of(samples)
    assert 1e-5 < error < 1e-3  # 8-bit mu-law: some 38 dB


def test_silence_stays_silent() -> None:
    silent = np.zeros(1600, np.float32)
    assert not add_noise(silent, 10, 1).any()
    assert not over_telephone(silent).any()
