"""`starling bench` with the embedded model: the table, the JSON line, and what it refuses."""

import argparse
import json
import wave
from pathlib import Path

import pytest

from engine.audio.units import SAMPLE_RATE
from stream_server.bench_command import add_arguments, run
from tests.support.clips import TWO_SENTENCES
from tests.support.sounds import s16le, silence

EMBEDDED = ("--model", "embedded", "--device", "cpu", "--dtype", "float32", "--threads", "1")


def parse(*argv: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(list(map(str, argv)))


def bench(name: str, *argv: str | Path) -> int:
    return run(parse(name, *EMBEDDED, *argv))


def test_the_last_line_that_is_printed_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("redecode", "--interval-ms", "1000", TWO_SENTENCES) == 0
    *table, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert told["benchmark"] == "bench redecode"
    assert (told["model"], told["device"], told["dtype"]) == ("embedded", "cpu", "float32")
    assert [row["drafts"] for row in told["rows"]] == ["off", "on"]
    assert "hypotheses" in "\n".join(table)


def test_the_server_is_measured_without_an_engine(capsys: pytest.CaptureFixture[str]) -> None:
    args = parse("server", "--sessions", "2", "--seconds", "0.1", TWO_SENTENCES)
    assert run(args) == 0
    *table, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert told["benchmark"] == "bench server"
    assert (told["sessions"], told["chunk_ms"], told["model"]) == (2, 20, "none")
    assert {"receive to mailbox", "socket to mailbox"} <= {row["part"] for row in told["rows"]}
    assert "receive to mailbox" in "\n".join(table)


@pytest.mark.parametrize("flag", ["--sessions=0", "--chunk-ms=0", "--seconds=0", "--seconds=inf"])
def test_a_load_that_is_none_is_refused(flag: str) -> None:
    with pytest.raises(SystemExit):
        parse("server", flag)


def test_numbers_of_requests_are_a_list() -> None:
    assert parse("throughput").requests == (1, 16, 64, 256)
    assert parse("throughput", "--requests", "1,4").requests == (1, 4)
    for wrong in ("", "1,,2", "four", "0", "4,-1"):
        with pytest.raises(SystemExit):
            parse("throughput", f"--requests={wrong}")


def test_a_recording_that_cannot_be_measured_with_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    silent = tmp_path / "silent.wav"
    with wave.open(str(silent), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(s16le(silence(1)))
    for path, reason in (
        (silent, "expected recordings with speech, found none in them"),
        (tmp_path / "missing.wav", f"{tmp_path / 'missing.wav'}: cannot be read as audio"),
    ):
        assert bench("redecode", path) == 1
        assert capsys.readouterr().err.startswith(f"starling bench: {reason}")


def test_an_engine_that_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("redecode", "--threads", "-1") == 1
    assert capsys.readouterr().err.startswith("starling bench: threads: got -1")
    assert bench("redecode", "--model", "/no/such/whisper", TWO_SENTENCES) == 1
    assert "/no/such/whisper" in capsys.readouterr().err
