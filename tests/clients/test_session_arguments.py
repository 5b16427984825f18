import argparse

import pytest

from clients.client import DEFAULT_URL
from clients.session_arguments import add_session_arguments, start_message
from stream_server.protocol import Start


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_session_arguments(parser)
    return parser.parse_args(argv)


def test_no_argument_asks_for_the_defaults_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STARLING_API_KEY", raising=False)
    args = parse()
    assert start_message(args, sample_rate=16_000, channels=1) == Start()
    assert (args.url, args.api_key, args.msgpack) == (DEFAULT_URL, None, False)


def test_every_argument_reaches_the_start_message() -> None:
    args = parse(
        *("--language", "de", "--languages", "de, en", "--task", "translate"),
        *("--prompt", "Starling", "--no-append-only", "--word-timestamps"),
        *("--interim-interval-ms", "250", "--endpoint-silence-ms", "800"),
        *("--vad-threshold", "0.4", "--max-segment-s", "12"),
    )
    start = start_message(args, sample_rate=8_000, channels=2, interim_results=False)
    assert start == Start(
        sample_rate=8_000,
        channels=2,
        language="de",
        languages=["de", "en"],
        task="translate",
        prompt="Starling",
        interim_results=False,
        append_only=False,
        word_timestamps=True,
        interim_interval_ms=250,
        endpoint_silence_ms=800,
        vad_threshold=0.4,
        max_segment_s=12,
    )


def test_the_api_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARLING_API_KEY", "from the environment")
    assert parse().api_key == "from the environment"
    assert parse("--api-key", "given").api_key == "given"
