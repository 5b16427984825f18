import csv
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from engine.audio.file import read_audio
from tests.support.synthesisers import needs_espeak
from tests.support.tone_speech import ToneSpeech
from training.errors import RecipeError
from training.speech.shards import read_utterances
from training.speech.synthesis import (
    SHARDS,
    ShardJob,
    installed_engines,
    shard_jobs,
    speak_held_out,
    speak_shard,
    start_engines,
    synthesise,
)
from training.speech.voices import Synthesiser
from training.text.collection import HELD_OUT_FILE, SENTENCES_FILE


@pytest.fixture
def text(tmp_path: Path) -> Path:
    directory = tmp_path / "text"
    directory.mkdir()
    (directory / SENTENCES_FILE).write_text("talk\tHello there.\ntalk\tGood morning, Alice.\n")
    (directory / HELD_OUT_FILE).write_text("talk\tWe are late.\nnumbers\tIt costs ten cents.\n")
    return directory


def test_shards_hold_every_text_once_a_round_by_other_voices(tmp_path: Path) -> None:
    texts = [f"number {n}" for n in range(900)]
    jobs = shard_jobs(tmp_path, texts, ("flite",), rounds=2, fmt="opus")
    assert [text for job in jobs for text in job.texts] == texts * 2
    assert len({job.stem for job in jobs}) == len(jobs) == 6
    assert len({job.seed for job in jobs}) == 6
    assert {job.bit_rate for job in jobs} == {24_000, 10_000}


def test_a_job_is_spoken_and_what_is_silent_is_left_out(tmp_path: Path) -> None:
    job = ShardJob(tmp_path / "shard", ("Hello.", "...", "Bye."), ("flite",), "s", "s16", 24_000)
    seconds = speak_shard(job, {"flite": ToneSpeech()})
    utterances = list(read_utterances(tmp_path / "shard.jsonl"))
    assert [utterance.text for utterance in utterances] == ["Hello.", "Bye."]
    assert 0.3 < seconds < 3


def test_held_out_sentences_make_a_manifest_that_the_bench_takes(
    tmp_path: Path, text: Path
) -> None:
    speaking: AbstractContextManager[Mapping[str, Synthesiser]] = nullcontext(
        {"flite": ToneSpeech()}
    )
    manifest = speak_held_out(text, tmp_path, speaking)
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["transcript"] for row in rows] == ["We are late.", "It costs ten cents."]
    assert [row["source"] for row in rows] == ["seen voices", "numbers, held-out voices"]
    heard = read_audio(manifest.parent / rows[0]["path"])
    assert len(heard) / 16_000 == pytest.approx(float(rows[0]["seconds"]), abs=0.2)
    written = manifest.stat().st_mtime_ns
    assert speak_held_out(text, tmp_path, start_engines(["nobody"])).stat().st_mtime_ns == written


def test_processes_speak_what_is_not_there_yet(tmp_path: Path, text: Path) -> None:
    needs_espeak()
    assert "espeak" in installed_engines()
    with start_engines(()) as started:
        assert started == {}
    hours = synthesise(text, tmp_path, engines=("espeak",), processes=1)
    assert hours > 0
    lines = tmp_path / SHARDS / "shard-00000.jsonl"
    assert [u.text for u in read_utterances(lines)] == ["Hello there.", "Good morning, Alice."]
    written = lines.stat().st_mtime_ns
    assert synthesise(text, tmp_path, engines=("espeak",), processes=1) == 0
    assert lines.stat().st_mtime_ns == written


def test_what_lacks_is_said_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "kokoro", None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert not {"festival", "kokoro"} & set(installed_engines())
    assert "festival: its voices are missing (no such command)" in caplog.text
    assert "kokoro: its voices are missing (no such package)" in caplog.text


def test_an_engine_that_is_asked_for_by_name_must_be_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "kokoro", None)
    with (
        pytest.raises(RecipeError, match="kokoro: expected the package"),
        start_engines(["kokoro"]),
    ):
        pass


def test_without_a_synthesiser_nothing_can_be_spoken(tmp_path: Path, text: Path) -> None:
    with pytest.raises(RecipeError, match="to be installed, found none"):
        synthesise(text, tmp_path, engines=(), processes=1)
