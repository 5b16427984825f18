"""`starling bench` with the embedded model: the table, the JSON line, and what it refuses."""

import argparse
import json
import wave
from pathlib import Path

import pytest

from engine.audio.units import SAMPLE_RATE
from stream_server.bench_command import add_arguments, run
from tests.support.clips import TWO_SENTENCES
from tests.support.model_dims import small_dims
from tests.support.sounds import s16le, silence

EMBEDDED = ("--model", "embedded", "--device", "cpu", "--dtype", "float32", "--threads", "1")

RANDOM = ("--checkpoint", "tiny", "--device", "cpu", "--dtype", "float32")
# As many layers as "tiny" has in its decoder, and much narrower.
SIZES = {
    "tiny": small_dims(
        n_mels=80,
        n_audio_state=64,
        n_text_state=64,
        n_text_layer=4,
        n_vocab=2200,
        n_text_ctx=448,
    )
}


def parse(*argv: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(list(map(str, argv)))


def bench_random(name: str, *argv: str) -> int:
    return run(parse(name, *RANDOM, *argv), SIZES)


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


def test_partials_are_measured_with_speech(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("partials", "--interval-ms", "2000", TWO_SENTENCES) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["benchmark"], told["model"]) == ("bench partials", "embedded")
    assert {row["partials"] for row in told["rows"]} == {"trimmed", "incremental"}
    assert all("words unlike exact, %" in row for row in told["rows"])
    assert told["growth"] == {}  # no sentence is as long


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


def test_random_weights_are_of_published_sizes() -> None:
    assert parse("attention").checkpoint == ("tiny", "base", "small", "medium")
    assert parse("floor").checkpoint == ("large-v3-turbo",)
    assert parse("gpu").checkpoint == ("large-v3-turbo", "large-v3")
    assert parse("formats", "--checkpoint", "tiny,base").checkpoint == ("tiny", "base")
    for wrong in ("", "tiny,", "whisper"):
        with pytest.raises(SystemExit):
            parse("sessions", f"--checkpoint={wrong}")


def test_what_is_measured_at_once_and_how_long_can_be_told() -> None:
    assert parse("requests", "--requests", "1,4").requests == (1, 4)
    args = parse("sessions", "--sessions", "10,20", "--seconds", "5")
    assert (args.sessions, args.seconds) == ((10, 20), 5.0)
    args = parse("gpu", "--seconds", "60", "--output", "here.json", "--dtype", "bfloat16")
    assert (args.seconds, args.output, args.dtype) == (60.0, Path("here.json"), "bfloat16")
    for name in ("attention", "floor", "formats", "gpu"):
        assert parse(name, "--seconds", "7").seconds == 7.0


def test_a_short_time_measures_one_row_and_names_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench_random("attention", "--seconds", "0.001") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["benchmark"] == "bench attention"
    assert (told["model"], told["dtype"]) == ("random weights: tiny", "float32")
    ((row,), left_out) = (told["rows"], told["left_out"])
    assert (row["model"], row["back end"], row["windows"], row["tokens"]) == ("tiny", "sdpa", 1, 25)
    assert len(left_out) == 7  # of two decoders, two back ends and two cases


def test_tables_of_one_model_say_which_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_random("floor", "--seconds", "0.001") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["benchmark"] == "bench floor"
    assert [(row["model"], row["step"]) for row in told["rows"]] == [("tiny", "decode")]
    assert told["about"]["tiny"]["copy_gb_per_s"] > 0.0


def test_sessions_are_shown_turned_and_kept_as_rows(capsys: pytest.CaptureFixture[str]) -> None:
    load = ("--sessions", "1,2", "--seconds", "0.5", "--partial-context", "incremental")
    assert bench_random("sessions", *load) == 0
    *table, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert told["benchmark"] == "bench sessions"
    assert [(row["model"], row["sessions"]) for row in told["rows"]] == [("tiny", 1), ("tiny", 2)]
    assert told["about"]["tiny"]["partial_context"] == "incremental"
    shown = "\n".join(table)
    assert "tiny 1" in shown
    assert "finals missing" in shown


def test_requests_of_random_weights_have_a_row_for_each_engine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench_random("requests", "--requests", "1", "--weights", "int8") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["benchmark"] == "bench requests"
    assert [(row["model"], row["engine"], row["context"]) for row in told["rows"]] == [
        ("tiny", "eager", "full"),
        ("tiny", "eager", "trimmed"),
        ("tiny", "transformers", "full"),
    ]
    assert told["about"]["tiny"]["weights"] == "int8"


def test_all_tables_of_a_gpu_need_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    assert run(parse("gpu", "--device", "cpu", "--output", output)) == 1
    assert "takes a CUDA device" in capsys.readouterr().err
    assert not output.exists()


def test_word_errors_are_counted_by_a_command_of_their_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = tmp_path / "manifest.tsv"
    assert bench("wer", missing) == 1
    assert f"starling bench: {missing}: cannot be read as a manifest" in capsys.readouterr().err
    assert bench("wer", "--invented", "0.01") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["benchmark"] == "bench wer"
    assert {row["minutes"] for row in told["rows"]} == {0.01}


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
