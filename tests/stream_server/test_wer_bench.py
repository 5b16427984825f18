"""`starling bench wer` with the embedded model: its flags, its tables and what it refuses."""

import argparse
import json
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.errors import ConfigError
from stream_server.wer_bench import add_arguments, run
from tests.support.clips import TWO_SENTENCES

EMBEDDED = ("--model", "embedded", "--device", "cpu", "--dtype", "float32", "--threads", "1")
HEADER = "path\tseconds\ttranscript\tlanguage\tspeaker\tsource\tlicence"


def parse(*argv: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(list(map(str, argv)))


def manifest(directory: Path, *languages: str) -> Path:
    said = " ".join(TWO_SENTENCES.with_suffix(".txt").read_text().split())
    lines = [f"{TWO_SENTENCES}\t5.0\t{said}\t{code}\tflite\tclips\tfree" for code in languages]
    path = directory / "manifest.tsv"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def test_a_manifest_is_heard_in_every_way(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    details = tmp_path / "details.jsonl"
    path = manifest(tmp_path, "en", "pt")
    asked = ("--limit", "1", "--invented", "0.01", "--look-back", "16")
    context = ("--partial-context", "incremental")
    run(parse(path, *EMBEDDED, *asked, *context, "--details", details))
    *tables, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert (told["model"], told["device"], told["dtype"]) == ("embedded", "cpu", "float32")
    assert (told["limit"], told["partial_context"], told["interval_ms"]) == (1, "incremental", 400)
    assert min(told["steps"][kind] for kind in ("EncodeStep", "ExtendStep", "DecodeStep")) > 0
    assert told["left_out"] == {}  # the limit came first
    rates = {row["way"]: row["WER %"] for row in told["rows"]}
    assert list(rates) == [
        "offline, whole",
        "offline, speech",
        "live, finals",
        "live, last partials",
    ]
    assert rates["offline, speech"] <= 20
    words = {(row["sound"], row["way"]): row["words"] for row in told["invented"]}
    assert len(words) == 2 * 6
    assert words["silence", "offline, whole"] == words["silence", "offline, speech"] == 0
    assert len(details.read_text().splitlines()) == 4
    assert "invented words" in "\n".join(tables)


def test_there_must_be_something_to_hear(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes at least one of them"):
        run(parse(*EMBEDDED))
    with pytest.raises(ConfigError, match="knows en: no recording is in these"):
        run(parse(manifest(tmp_path, "pt"), *EMBEDDED, "--divide", "whole"))


@pytest.mark.parametrize(
    "flag",
    ["--limit=0", "--interval-ms=50", "--look-back=-1", "--invented=0", "--worst=-1", "--by=day"],
)
def test_numbers_that_make_no_sense_are_refused(flag: str) -> None:
    with pytest.raises(SystemExit):
        parse(flag)


def test_defaults_are_the_engines_own() -> None:
    args = parse("manifest.tsv")
    config = EngineConfig()
    assert (args.partial_context, args.look_back) == (config.partial_context, config.look_back)
    assert (args.context, args.interval_ms) == (config.context, 400)
    assert (args.by, args.divide, args.noise_db, args.telephone) == ("source", "both", None, False)
    assert (args.invented, args.worst, args.offline_only, args.limit) == (0.0, 10, False, None)
