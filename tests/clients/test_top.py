"""The command against a live server, and the views of figures it cannot have by chance."""

import argparse
import asyncio
import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from math import inf

import pytest
from rich.console import Console

from clients.client import StreamClient
from clients.top import add_arguments, run, scrape, view
from clients.top_figures import Figures, Percentiles, StepFigures, figures_between
from stream_server.protocol import Start
from tests.support.live_server import live_server
from tests.support.sounds import s16le, silence, tone

NOTHING = Percentiles(0, None, 10.0)
FIGURES = Figures(
    build={"version": "0.1.0", "model": "base", "device": "cuda", "dtype": "float16"},
    sessions={"new": 0, "open": 12, "ending": 1},
    session_limit=64,
    admitted_per_s=0.5,
    refused={"capacity": 2},
    errors={"bad_message": 1, "idle_timeout": 3},
    utterances=7,
    audio_s_per_s=12.3,
    speech_share=0.48,
    steps=(StepFigures("decode", 10, 4.25, 12.5, 0.125), StepFigures("align", 0, None, None, 0)),
    tokens_per_s=99.6,
    acceptance=0.91,
    partial_interval_s=0.8,
    rung=1,
    final_latency=Percentiles(20, (0.6, 0.75, inf), 10.0),
    partial_lag=NOTHING,
    queue_wait={"final": NOTHING},
    loop_lag=NOTHING,
    loop_lag_max_s=0.042,
    vad_call_ms=1.25,
    vad_frames_per_s=400,
    outbox_max=3,
    cpu_cores=1.5,
    memory_bytes=2**30,
    device_memory_bytes={"reserved": 3 * 2**30},
)


def shown(figures: Figures) -> str:
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        console.print(view(figures))
    return capture.get()


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(argv)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A web server that is not ours."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_live_server_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    with live_server(max_sessions=9) as server:
        assert run(parse("--url", server.url, "--once", "--interval", "0.01")) == 0
    told = capsys.readouterr().out
    assert "memory cpu float32" in told
    assert "0 of 9 (0 new, 0 open, 0 ending)" in told
    for kind in ("encode", "prefill", "verify", "decode", "align"):
        assert re.search(rf"^{kind} +0\.0", told, re.MULTILINE)
    assert "queue wait, early" in told
    assert "refused" not in told


def test_figures_of_a_live_server_are_those_of_what_was_said_to_it() -> None:
    async def talk(url: str) -> None:
        async with StreamClient(url, Start()) as client:
            for _ in range(2):
                await client.send_audio(s16le(tone(1)))
                await client.send_audio(s16le(silence(1)))
            await client.stop()
            async for _ in client:
                pass

    with live_server() as server:
        before = scrape(server.http("/metrics"))
        asyncio.run(talk(server.url))
        after = scrape(server.http("/metrics"))
    figures = figures_between(before, after)
    seconds = after.at - before.at
    assert figures.final_latency.count == 2
    assert figures.partial_lag.count > 0
    assert figures.audio_s_per_s * seconds == pytest.approx(4, abs=0.032)
    assert figures.speech_share is not None
    assert 0.5 < figures.speech_share < 1
    assert figures.admitted_per_s * seconds == pytest.approx(1)
    assert figures.vad_frames_per_s * seconds == pytest.approx(125)
    assert (figures.errors, figures.refused) == ({}, {})


def test_every_figure_has_its_place() -> None:
    told = shown(FIGURES)
    for words in (
        "starling 0.1.0 base cuda float16",
        "sessions 13 of 64 (0 new, 12 open, 1 ending)",
        "admitted 0.50/s",
        "utterances 7",
        "outbox 3 at most",
        "audio 12.3 s/s",
        "speech 48 %",
        "tokens 100/s",
        "drafts accepted 91 %",
        "partials every 0.8 s (rung 1)",
        "loop lag max 42 ms",
        "vad 1.2 ms a call, 400 frames/s",
        "cpu 1.50 cores",
        "memory 1024 MiB process, 3072 MiB device reserved",
        "refused 2 capacity",
        "errors 1 bad_message, 3 idle_timeout",
    ):
        assert words in told, words
    assert re.search(r"^decode +10\.0 +4\.2 +12\.5 +12 %$", told, re.MULTILINE)
    assert re.search(r"^align +0\.0 +- +- +0 %$", told, re.MULTILINE)
    assert re.search(r"^end of speech → final +20 +600 +750 +> 10000$", told, re.MULTILINE)
    assert re.search(r"^partial lag +0 +- +- +-$", told, re.MULTILINE)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("ws://h:1/v1/stream", "http://h:1/metrics"),
        ("wss://h", "https://h/metrics"),
        ("http://h:1", "http://h:1/metrics"),
        ("https://h/", "https://h/metrics"),
    ],
)
def test_a_server_is_named_as_clients_name_it(given: str, read: str) -> None:
    assert parse("--url", given).url == read


def test_without_an_address_it_is_the_server_of_this_machine() -> None:
    assert parse().url == "http://127.0.0.1:8765/metrics"


@pytest.mark.parametrize("argv", [["--url", "here"], ["--interval", "0"], ["--interval", "inf"]])
def test_what_cannot_be_meant_is_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(*argv)
    assert end.value.code == 2


def test_a_server_that_cannot_be_reached_is_one_sentence_and_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with live_server() as server:
        url = server.url
    assert run(parse("--url", url, "--once")) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(r"starling top: http://\S+/metrics: cannot be reached: .+\n", told)


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (200, b"<html>\n", "Prometheus' text format"),
        (200, b"up 1\n", "not a Starling server"),
        (404, b"this server shows no metrics\n", "answered 404: this server shows no metrics\n"),
        (404, b"<html>\n<h1>Lost</h1>\n</html>\n", "answered 404: Not Found\n"),
    ],
)
def test_an_answer_that_is_none_is_one_sentence_and_status_1(
    status: int, body: bytes, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(status, body) as url:
        assert run(parse("--url", url, "--once")) == 1
    assert sentence in capsys.readouterr().err


def test_the_live_view_goes_on_until_the_server_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with live_server() as server:
        ending = threading.Timer(0.5, lambda: setattr(server.server, "should_exit", True))
        ending.start()
        assert run(parse("--url", server.url, "--interval", "0.05")) == 1
        ending.join()
    told = capsys.readouterr()
    assert "sessions 0 of 64" in told.out
    assert "cannot be reached" in told.err
