"""`starling stream`: a recording, or standard input, sent as if it were spoken now."""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import TextIO

from clients.audio_source import AudioSource, AudioSourceError, open_audio
from clients.client import ConnectError, ServerError, StreamError, transcribe
from clients.latency import LatencyMeter
from clients.session_arguments import add_session_arguments, start_message
from clients.terminal import Display, choose_display
from stream_server.protocol import Done, Final, Start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    parser.add_argument(
        "file",
        help="an audio file, or - for standard input (WAV, or raw 16 kHz mono s16le)",
    )
    parser.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="N",
        help="times real time; 0: as fast as the server takes it; default: %(default)g",
    )
    parser.add_argument("--partials", action="store_true", help="partials too, in a pipe")
    parser.add_argument("--json", action="store_true", help="the protocol's messages, one per line")
    add_session_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Stream the file and show the transcript on stdout; everything else goes to stderr.

    Returns 0, 1 where the session failed, 2 where there was none, 130 where it was interrupted.
    """
    try:
        source = open_audio(args.file)
        live = sys.stdout.isatty()
        start = start_message(
            args,
            sample_rate=source.sample_rate,
            channels=source.channels,
            interim_results=live or args.partials or args.json,
        )
        display = choose_display(sys.stdout, as_json=args.json, partials=args.partials)
        asyncio.run(_stream(args, source, start, display, sys.stderr))
    except KeyboardInterrupt:
        return 130
    except (AudioSourceError, ConnectError) as exc:
        print(f"starling stream: {exc}", file=sys.stderr)
        return 2
    except StreamError as exc:
        print(f"starling stream: {exc}", file=sys.stderr)
        return 1
    return 0


async def _stream(
    args: argparse.Namespace, source: AudioSource, start: Start, display: Display, notes: TextIO
) -> None:
    meter = LatencyMeter()
    num_finals, audio_s = 0, 0.0

    async def audio() -> AsyncIterator[bytes]:
        sent_bytes = 0
        async for chunk in source.paced(args.speed):
            # Read before sending: waiting for the server is part of the latency.
            sent_bytes += len(chunk)
            meter.sent(source.seconds(sent_bytes), time.monotonic())
            yield chunk

    with display:
        try:
            async for message in transcribe(
                args.url, audio(), start, api_key=args.api_key, msgpack=args.msgpack
            ):
                meter.received(message, time.monotonic())
                num_finals += isinstance(message, Final)
                display.show(message)
                if isinstance(message, Done):
                    audio_s = message.audio_s
        except ServerError as exc:
            if args.json:
                display.show(exc.event)
            raise
    print(summary(audio_s, num_finals, meter, args.speed), file=notes)


def summary(audio_s: float, num_finals: int, meter: LatencyMeter, speed: float) -> str:
    """The closing line. Latency is told only for audio that was paced as speech is."""
    line = f"{audio_s:.1f} s of audio, {num_finals} segment{'' if num_finals == 1 else 's'}"
    if speed > 0 and meter.median_s is not None:
        line += f", median latency end of speech to final {meter.median_s * 1000:.0f} ms"
    return line


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 <= speed < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, accepted: 0 or a positive number")
    return speed
