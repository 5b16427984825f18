import argparse
import json
import socket
from pathlib import Path

import pytest

from clients.file import add_arguments, run, summary
from clients.latency import LatencyMeter
from stream_server.protocol import ErrorMessage, Final, Partial, SpeechStopped
from tests.support.clips import TWO_SENTENCES, read_clip
from tests.support.scripted_server import Peer, ScriptedServer, ready, run_beside, transcript

STOPPED = SpeechStopped(seq=2, at=1.2)
PARTIAL = Partial(
    seq=3,
    segment=0,
    revision=0,
    start=0.2,
    end=1.0,
    text="hel",
    stable_text="",
    stable_end=0.2,
    language="en",
)
FINAL = Final(
    seq=4,
    segment=0,
    start=0.2,
    end=1.2,
    text="hello",
    language="en",
    language_probability=1.0,
    confidence=0.9,
    no_speech_prob=0.0,
)


def stream(server: ScriptedServer, *argv: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run_beside(server, lambda url: run(parser.parse_args([*argv, "--url", url])))


def test_a_file_is_sent_whole_and_its_finals_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = ScriptedServer(transcript(STOPPED, PARTIAL, FINAL))
    assert stream(server, str(TWO_SENTENCES), "--speed", "0", "--language", "en") == 0
    (peer,) = server.peers
    assert len(peer.pcm) == 2 * len(read_clip(TWO_SENTENCES))
    assert (peer.start.language, peer.start.interim_results) == ("en", False)
    printed = capsys.readouterr()
    assert printed.out == "[ 0:00.2 -  0:01.2] hello\n"
    assert printed.err == "1.5 s of audio, 1 segment\n"


def test_partials_are_asked_for_and_printed_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    server = ScriptedServer(transcript(PARTIAL, FINAL))
    assert stream(server, str(TWO_SENTENCES), "--speed", "0", "--partials") == 0
    assert server.peers[0].start.interim_results
    assert capsys.readouterr().out == "[ 0:00.2 -  0:01.0] ~ hel\n[ 0:00.2 -  0:01.2] hello\n"


@pytest.mark.parametrize("wire", [[], ["--msgpack"]])
def test_json_prints_every_message_in_order(
    wire: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server = ScriptedServer(transcript(STOPPED, PARTIAL, FINAL))
    assert stream(server, str(TWO_SENTENCES), "--speed", "0", "--json", *wire) == 0
    messages = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(message["seq"], message["type"]) for message in messages] == [
        (1, "ready"),
        (2, "speech_stopped"),
        (3, "partial"),
        (4, "final"),
        (5, "done"),
    ]


def test_an_error_of_the_server_is_told_and_fails_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(ready())
        await peer.send(ErrorMessage(seq=2, code="engine_failure", message="out of memory"))
        await peer.connection.close(1011)

    assert stream(ScriptedServer(script), str(TWO_SENTENCES), "--speed", "0", "--json") == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["code"] == "engine_failure"
    assert printed.err == "starling stream: engine_failure: out of memory\n"


def test_a_missing_file_and_an_unreachable_server_are_told_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([str(tmp_path / "none.wav")])) == 2
    assert "none.wav: no such file" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
    assert run(parser.parse_args([str(TWO_SENTENCES), "--url", url])) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "is the server running?" in printed.err


@pytest.mark.parametrize("speed", ["-1", "nan", "inf"])
def test_a_speed_that_is_none_is_refused(speed: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["x.wav", "--speed", speed])
    assert f"got {speed}, accepted: 0 or a positive number" in capsys.readouterr().err


def test_the_summary_tells_the_latency_of_paced_audio_only() -> None:
    meter = LatencyMeter()
    meter.sent(1.2, 10.0)
    meter.received(STOPPED, 10.5)
    meter.received(FINAL, 10.65)
    line = "1.5 s of audio, 2 segments"
    told = f"{line}, median latency end of speech to final 650 ms"
    assert summary(1.5, 2, meter, speed=1.0) == told
    assert summary(1.5, 2, meter, speed=0.0) == line
