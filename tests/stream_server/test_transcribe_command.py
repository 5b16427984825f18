"""`starling transcribe` with the embedded model, from its arguments to what it prints."""

import argparse
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from engine.audio.units import SAMPLE_RATE
from stream_server.transcribe_command import add_arguments, run
from tests.support.checkpoints import make_checkpoint
from tests.support.clips import TWO_SENTENCES, read_clip
from tests.support.engines import Audio
from tests.support.sounds import s16le, silence

FIRST, SECOND = "It's a beautiful day for a long walk.", "The next train leaves in ten minutes."
ON_ONE_CORE = ("--device", "cpu", "--dtype", "float32", "--threads", "1")


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what is decided before anything is decoded."""
    return make_checkpoint(tmp_path_factory.mktemp("transcribe") / "random", "tiny.en")


def transcribe(*argv: str | Path, model: str | Path = "embedded") -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([*ON_ONE_CORE, "--model", str(model), *map(str, argv)]))


def write_wav(path: Path, *parts: Audio) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(s16le(np.concatenate(parts)))
    return path


def test_speech_becomes_lines_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe(TWO_SENTENCES, "--no-timestamps") == 0
    printed = capsys.readouterr()
    assert printed.out == f"{FIRST}\n{SECOND}\n"
    assert printed.err == "", "a bar is for terminals"


def test_json_has_times_on_the_recording_s_clock_and_words_where_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clip = read_clip(TWO_SENTENCES)
    path = write_wav(tmp_path / "late.wav", silence(3), clip)
    assert transcribe(path, "--json", "--word-timestamps", "--language", "en") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["text"] == f"{FIRST} {SECOND}"
    assert document["language"] == "en"
    assert document["duration"] == pytest.approx(3 + len(clip) / SAMPLE_RATE)
    words = [word for line in document["segments"] for word in line["words"]]
    assert [word["word"] for word in words] == document["text"].split()
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert 3.0 < times[0] < 4.0
    assert times[-1] <= document["duration"]


def test_a_file_that_cannot_be_read_does_not_keep_others_from_being_transcribed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = tmp_path / "missing.wav"
    assert transcribe(missing, TWO_SENTENCES, "--format", "srt", "--no-timestamps") == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"starling transcribe: {missing}: cannot be read as audio")
    assert [line for line in printed.out.splitlines() if line[:1].isalpha()] == [FIRST, SECOND]
    assert printed.out.count(" --> ") == 2


def test_without_a_detector_everything_is_decoded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The whole recording is one utterance, the silence at its ends included."""
    path = write_wav(tmp_path / "clip.wav", silence(0.5), read_clip(TWO_SENTENCES), silence(0.5))
    assert transcribe(path, "--no-vad", "--no-timestamps", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["text"] == f"{FIRST} {SECOND}"
    (line,) = document["segments"]
    assert (line["start"], line["end"]) == (0, document["duration"])


def test_a_recording_in_which_nobody_speaks_is_an_empty_transcript(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, random_model: Path
) -> None:
    path = write_wav(tmp_path / "silence.wav", silence(2))
    assert transcribe(path, model=random_model) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (("--language", "de"), "--language: got 'de', random takes en"),
        (("--task", "translate"), "--task: got 'translate', random takes transcribe"),
    ],
)
def test_what_the_model_cannot_do_is_refused(
    capsys: pytest.CaptureFixture[str], random_model: Path, wish: tuple[str, str], message: str
) -> None:
    assert transcribe(TWO_SENTENCES, *wish, model=random_model) == 1
    assert capsys.readouterr().err == f"starling transcribe: {message}\n"


def test_a_model_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe(TWO_SENTENCES, model="/no/such/whisper") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("starling transcribe: model: got '/no/such/whisper'")


def test_only_one_format_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        transcribe(TWO_SENTENCES, "--json", "--format", "srt")
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
