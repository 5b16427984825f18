import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.load_clips import (
    BACKGROUND_SAMPLES,
    QUIET_RMS,
    STREET_RMS,
    Clip,
    ClipError,
    ClipStore,
    PreparedAudio,
    read_manifest,
    shipped_clips,
)
from clients.load_plan import Kind, LoadShape, Part, SessionPlan, plan_session
from tests.support.clips import DEMO, TWO_SENTENCES, read_clip


def plan_of(*parts: Part, kind: Kind = "speech") -> SessionPlan:
    return SessionPlan(0, kind, False, 0.0, parts, chunk_seed="chunks")


def manifest(folder: Path, text: str) -> Path:
    (folder / "manifest.tsv").write_text(text)
    return folder


def test_a_manifest_is_read_with_a_line_of_names_and_without(tmp_path: Path) -> None:
    row = 'a/one.flac\t1.5\tTHEY SAID "NO\t\ten\n'
    expected = [Clip(tmp_path / "a/one.flac", 'THEY SAID "NO')]
    assert read_manifest(manifest(tmp_path, row)) == expected
    named = "path\tseconds\ttranscript\tspeaker\tlanguage\n"
    assert read_manifest(manifest(tmp_path, named + row)) == expected
    assert read_manifest(manifest(tmp_path, "transcript\tpath\nhello\tx.wav\n")) == [
        Clip(tmp_path / "x.wav", "hello")
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "No such file.*accepted: a folder with a manifest.tsv"),
        ("", "lists no clip"),
        ("path\tseconds\ttranscript\n", "lists no clip"),
        ("one.flac\t1\thello\ntwo.flac\t2\n", "clip 2 has 2 columns; accepted: path"),
    ],
)
def test_a_folder_that_holds_no_clips_is_refused(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    if text is not None:
        manifest(tmp_path, text)
    with pytest.raises(ClipError, match=sentence):
        read_manifest(tmp_path)


def test_the_package_ships_a_clip_with_its_transcript() -> None:
    (clip,) = shipped_clips()
    assert clip.path == DEMO
    assert clip.transcript.startswith("Hello and welcome. My name is Starling,")


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> PreparedAudio:
    """Two sentences, then two seconds of a 48 kHz stereo tone."""
    folder = tmp_path_factory.mktemp("clips")
    time = np.arange(2 * 48_000) / 48_000
    left = 0.5 * np.sin(2 * np.pi * 440 * time)
    stereo = np.stack([left, np.zeros_like(left)], axis=1)
    with wave.open(str(folder / "tone.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes((stereo * 32767).astype("<i2").tobytes())
    clips = [Clip(TWO_SENTENCES, "two"), Clip(folder / "tone.wav", "")]
    store = ClipStore.prepare(clips, folder / "clips.pcm")
    assert store.clip_samples == (len(read_clip(TWO_SENTENCES)), 2 * 16_000)
    return store.open()


def samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(np.float64) / 2**15


def test_clips_are_prepared_sample_for_sample(audio: PreparedAudio) -> None:
    np.testing.assert_array_equal(samples(audio.clip(0)), read_clip(TWO_SENTENCES))


def test_a_clip_of_another_rate_is_mixed_and_resampled(audio: PreparedAudio) -> None:
    spectrum = np.abs(np.fft.rfft(samples(audio.clip(1))[8_000:24_000]))
    assert np.argmax(spectrum) == 440
    assert spectrum[440] * 2 / 16_000 == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize(("kind", "rms"), [("silence", QUIET_RMS), ("noise", STREET_RMS)])
def test_backgrounds_have_the_level_they_are_named_for(
    audio: PreparedAudio, kind: Kind, rms: float
) -> None:
    plan = plan_of(Part(None, 0, BACKGROUND_SAMPLES), kind=kind)
    heard = samples(b"".join(audio.chunks(plan)))
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(rms, rel=0.01)


def test_noise_is_low_as_that_of_a_street_and_quiet_is_even(audio: PreparedAudio) -> None:
    ratios = {}
    for kind in ("silence", "noise"):
        plan = plan_of(Part(None, 0, BACKGROUND_SAMPLES), kind=kind)
        power = np.abs(np.fft.rfft(samples(b"".join(audio.chunks(plan))))) ** 2
        half = len(power) // 2
        ratios[kind] = power[:half].sum() / power[half:].sum()
    assert ratios["silence"] == pytest.approx(1, abs=0.05)
    assert ratios["noise"] > 5


def test_pauses_between_clips_are_quiet_and_are_read_round_and_round(
    audio: PreparedAudio,
) -> None:
    twice = plan_of(Part(None, BACKGROUND_SAMPLES - 100, 2 * BACKGROUND_SAMPLES))
    once = plan_of(Part(None, 0, BACKGROUND_SAMPLES), kind="silence")
    heard, quiet = (samples(b"".join(audio.chunks(plan))) for plan in (twice, once))
    np.testing.assert_array_equal(heard[:100], quiet[-100:])
    np.testing.assert_array_equal(heard[100 : 100 + len(quiet)], quiet)
    np.testing.assert_array_equal(heard[100 + len(quiet) :], quiet[:-100])


@given(st.integers(0, 1000))
def test_the_chunks_of_a_session_are_its_parts_one_after_the_other(
    audio: PreparedAudio, seed: int
) -> None:
    shape = LoadShape(sessions=1, seconds=8, duty=0.7, seed=seed)
    lengths = [len(audio.clip(number)) // 2 for number in (0, 1)]
    plan = plan_session(shape, 0, lengths, BACKGROUND_SAMPLES)
    chunks = list(audio.chunks(plan))
    wanted = plan.chunk_lengths()
    assert [len(chunk) // 2 for chunk in chunks[:-1]] == [next(wanted) for _ in chunks[:-1]]
    assert 0 < len(chunks[-1]) // 2 <= next(wanted)
    heard = b"".join(chunks)
    assert len(heard) == 2 * plan.samples
    at = 0
    for part in plan.parts:
        if part.clip is not None:
            clip = audio.clip(part.clip)[2 * part.offset : 2 * (part.offset + part.length)]
            assert heard[at : at + len(clip)] == clip
        at += 2 * part.length


def test_a_clip_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"gone\.flac: no such file"):
        ClipStore.prepare([Clip(tmp_path / "gone.flac", "")], tmp_path / "clips.pcm")
