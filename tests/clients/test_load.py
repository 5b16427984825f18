import argparse
import json
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.load import add_arguments, exit_status, run
from tests.support.live_server import LiveServer, live_server
from tests.support.load_levels import document, level_of, small_level

QUICK = ("--seconds", "40", "--warm-up-s", "1", "--speed", "80")


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(argv)


def loadtest(*argv: str) -> int:
    return run(parsed(*argv))


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(max_sessions=4, api_key=["secret"]) as running:
        yield running


def test_three_sessions_are_measured_printed_saved_and_reported(
    server: LiveServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, report = tmp_path / "load.json", tmp_path / "load.html"
    where = ("--url", server.url, "--api-key", "secret")
    what = ("--sessions", "3", "--per-process", "2", "--noise-share", "0.34", "--kind", "noise")
    argv = (*where, *what, *QUICK, "--json", str(saved), "--report", str(report))
    assert loadtest(*argv) == 0
    printed = capsys.readouterr().out
    *tables, last = printed.splitlines()
    found = json.loads(last)
    assert json.loads(saved.read_text()) == found
    (level,) = found["levels"]
    assert level["outcomes"] == {"done": 3}
    assert [session["kind"] for session in level["per_session"]] == ["speech", "speech", "noise"]
    assert {session["subprotocol"] for session in level["per_session"]} == {"json", "msgpack"}
    assert [process["sessions"] for process in level["generator"]] == [2, 1]
    assert (level["retractions"], level["missing_finals"]) == (0, 0)
    assert level["latency"]["final_s"]["count"] > 0
    assert (found["model"], found["capacity"]) == ("memory", None)
    assert found["clips"] == {"folder": None, "count": 1, "seconds": pytest.approx(23.61)}
    assert "end of speech → final" in "\n".join(tables)
    page = report.read_text()
    assert page.startswith("<!doctype html>")
    for text in (printed, page):
        assert "secret" not in text
    again = parsed(*shlex.split(found["command"])[2:])
    again.api_key = "secret"
    assert again == parsed(*argv)


def test_a_search_prints_its_levels_and_the_figures_of_the_one_that_holds(
    server: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("--find-capacity", "--p95-final-ms", "60000", "--max-age-s", "60")
    where = ("--url", server.url, "--api-key", "secret", "--no-unloaded", "--duty", "1")
    assert loadtest(*where, "--sessions", "4", *QUICK, *limits) == 0
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])
    assert found["capacity"] == 4
    assert found["limits"] == {"p95_final_s": 60.0, "max_age_s": 60.0}
    assert [level["sessions"] for level in found["levels"]] == [4, 8, 6, 5]
    assert "capacity: 4 sessions" in printed
    assert re.search(r"^4 sessions: final p95 .*: holds$", printed, re.MULTILINE)
    assert "stop → done" in printed


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--duty", "2"), "duty: got 2.0, takes more than 0, at most 1"),
        (("--sessions", "0"), "sessions: got 0, takes 1 or more"),
        (("--clips", "/no/such/folder"), "/no/such/folder/manifest.tsv: No such file"),
    ],
)
def test_what_cannot_be_measured_is_told_with_status_2(
    argv: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loadtest(*argv) == 2
    assert capsys.readouterr().err.startswith(f"starling loadtest: {sentence}")


@pytest.mark.parametrize("argv", [("--speed", "0"), ("--per-process", "0"), ("--speed", "nan")])
def test_a_number_that_makes_no_sense_is_refused(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        parsed(*argv)
    assert refused.value.code == 2
    assert f"got {argv[1]}, accepted: " in capsys.readouterr().err


def test_a_server_that_is_not_there_is_told_with_status_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
    assert loadtest("--url", url, "--sessions", "1", *QUICK) == 2
    assert "is the server running?" in capsys.readouterr().err


def test_a_server_that_takes_nobody_is_told_with_status_2(
    server: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loadtest("--url", server.url, "--api-key", "wrong", *QUICK) == 2
    assert "HTTP 401" in capsys.readouterr().err


def test_sessions_beyond_the_server_are_refused_and_the_others_are_served(
    server: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("--sessions", "6", "--seconds", "4", "--speed", "10", "--no-unloaded")
    assert loadtest("--url", server.url, "--api-key", "secret", *argv) == 0
    (level,) = json.loads(capsys.readouterr().out.splitlines()[-1])["levels"]
    assert level["outcomes"] == {"done": 4, "refused": 2}
    assert level["refusals"] == {"HTTP 503": 2}
    assert level["retry_after_s"] == [2, 2]


def test_a_report_needs_matplotlib_and_says_so_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert loadtest("--report", "/tmp/never.html") == 2
    assert capsys.readouterr().err == (
        "starling loadtest: an HTML report needs matplotlib: pip install 'starling-asr[loadtest]'\n"
    )


def test_without_jiwer_everything_but_word_errors_is_measured(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    argv = ("--sessions", "1", "--seconds", "1", "--speed", "40", "--no-unloaded")
    assert loadtest("--url", server.url, "--api-key", "secret", *argv) == 0
    printed = capsys.readouterr().out
    assert "counting word errors needs jiwer: pip install 'starling-asr[loadtest]'" in printed
    assert json.loads(printed.splitlines()[-1])["levels"][0]["word_errors"] is None


def test_the_status_tells_whether_the_run_was_complete_and_nothing_was_retracted() -> None:
    level = small_level()
    assert exit_status(document(level)) == 0
    assert exit_status(document(level | {"retractions": 1})) == 1
    assert exit_status(document(level | {"missing_finals": 1})) == 1
    assert exit_status(document(level | {"outcomes": {"done": 1, "failed": 1}})) == 1
    assert exit_status(document(level | {"outcomes": {"refused": 2}})) == 1


def test_a_search_may_fail_sessions_but_not_retract_and_has_to_find_something() -> None:
    beyond = level_of(16, None, None) | {"outcomes": {"failed": 16}}
    assert exit_status(document(level_of(8, 0.1, 0.8), beyond, capacity=8)) == 0
    assert exit_status(document(beyond, capacity=0)) == 1
    assert exit_status(document(beyond | {"retractions": 1}, capacity=8)) == 1
