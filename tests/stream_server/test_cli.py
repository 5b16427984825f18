"""The `starling` command: what it offers, what it loads, and how it refuses."""

import json
import os
import re
import subprocess
import sys

import pytest

from stream_server.cli import main
from tests.support.server_process import ServerProcess

COMMANDS = ("serve", "demo", "transcribe", "stream", "mic", "top", "loadtest", "bench")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets a variable for torch; it is taken back after each test."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")


def ended(*argv: str) -> object:
    with pytest.raises(SystemExit) as end:
        main(argv)
    return end.value.code


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--help") == 0
    told = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^ +{command}\b", told, re.MULTILINE), command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_of_its_own(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(command, "--help") == 0
    assert f"starling {command}" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [(), ("sing",), ("transcribe",), ("serve", "--sing")])
def test_what_is_no_command_is_refused_with_status_2(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(*argv) == 2
    assert "usage: starling" in capsys.readouterr().err


def test_a_server_that_cannot_start_says_why_and_returns_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve", "--port", "0", "--model", "/no/such/whisper"]) == 2
    refusal = capsys.readouterr().err
    assert refusal.startswith("starling serve: ")
    assert "/no/such/whisper" in refusal


def test_a_setting_that_is_wrong_is_said_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve", "--port", "70000", "--model", "/no/such/whisper"]) == 2
    refusal = capsys.readouterr().err
    assert "--port" in refusal
    assert "/no/such/whisper" not in refusal


def test_threads_that_wait_do_not_spin_unless_somebody_asks_for_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended("--help")
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    ended("--help")
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        ("", ("torch", "numpy", "starlette", "websockets", "engine", "clients")),
        ("stream", ("torch", "starlette", "engine")),
        ("mic", ("torch", "starlette", "engine")),
        ("top", ("torch", "starlette", "websockets", "engine")),
        ("loadtest", ("torch", "starlette", "engine", "av", "matplotlib", "jiwer")),
        ("demo", ("torch", "starlette", "websockets", "engine")),
    ],
)
def test_a_command_loads_what_it_needs_and_nothing_else(
    command: str, unneeded: tuple[str, ...]
) -> None:
    """In a fresh interpreter; that of the tests has loaded everything."""
    program = f"""
import contextlib, sys
from stream_server.cli import main
with contextlib.suppress(SystemExit):
    main({[*command.split(), "--help"]})
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = ran.stdout.splitlines()[-1].split()
    assert "stream_server" in loaded
    assert not set(unneeded) & set(loaded)


def test_the_log_of_a_server_is_one_object_per_line_where_machines_read_it() -> None:
    server = ServerProcess("--log-format", "json")
    server.stop()
    *_, last = [json.loads(line) for line in server.log]
    assert last["level"] == "info"
    assert {"time", "logger", "message"} <= set(last)


def test_the_package_can_be_run_as_a_module() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "stream_server", "sing"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "usage: starling" in ran.stderr
