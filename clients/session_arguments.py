"""Command-line arguments that every command opening a session shares."""

import argparse
import os

from clients.client import DEFAULT_URL
from stream_server.protocol import Start


def add_session_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the server is and what `start` asks of it; defaults are the protocol's."""
    server = parser.add_argument_group("server")
    server.add_argument("--url", default=DEFAULT_URL, help="default: %(default)s")
    server.add_argument(
        "--api-key",
        default=os.environ.get("STARLING_API_KEY"),
        help="for a server that asks for one; default: $STARLING_API_KEY",
    )
    server.add_argument("--msgpack", action="store_true", help="MessagePack instead of JSON")

    wish, default = parser.add_argument_group("session"), Start()
    wish.add_argument("--language", help="ISO 639-1 code; default: detected")
    wish.add_argument(
        "--languages", type=_codes, metavar="A,B", help="detection is limited to these"
    )
    wish.add_argument("--task", default=default.task, help="transcribe (default) or translate")
    wish.add_argument("--prompt", default=default.prompt, help="text to condition on")
    wish.add_argument(
        "--no-append-only",
        dest="append_only",
        action="store_false",
        help="commit no text before the final: it may then differ from every partial",
    )
    wish.add_argument("--word-timestamps", action="store_true", help="times of words in finals")
    for name, kind, what in (
        ("interim_interval_ms", int, "audio between partials"),
        ("endpoint_silence_ms", int, "silence that ends an utterance"),
        ("vad_threshold", float, "speech probability that counts as speech"),
        ("max_segment_s", float, "longest segment"),
    ):
        wish.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            metavar="N",
            default=getattr(default, name),
            help=f"{what}; default: %(default)s",
        )


def start_message(
    args: argparse.Namespace, *, sample_rate: int, channels: int, interim_results: bool = True
) -> Start:
    """The `start` that the arguments ask for; the server judges its values."""
    return Start(
        sample_rate=sample_rate,
        channels=channels,
        language=args.language,
        languages=args.languages,
        task=args.task,
        prompt=args.prompt,
        interim_results=interim_results,
        append_only=args.append_only,
        interim_interval_ms=args.interim_interval_ms,
        word_timestamps=args.word_timestamps,
        endpoint_silence_ms=args.endpoint_silence_ms,
        vad_threshold=args.vad_threshold,
        max_segment_s=args.max_segment_s,
    )


def _codes(text: str) -> list[str]:
    return [code.strip() for code in text.split(",") if code.strip()]
