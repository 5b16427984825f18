"""Live sessions against a running server: latency of finals, partials, and the server's memory.

    starling serve --model embedded --max-sessions 64 &
    python tests/benchmarks/sessions.py paced --sessions 16 --seconds 60
    python tests/benchmarks/sessions.py churn --sessions 1000 --pid $(pgrep -f 'starling serve')

The last line is JSON. Not part of the tests: figures are reported, never asserted.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clients.client import DEFAULT_URL, StreamClient
from clients.latency import LatencyMeter
from engine.audio.file import read_audio
from stream_server.protocol import Final, Partial, Start

RATE = 16_000
CHUNK = RATE // 25
FIXTURES = Path(__file__).parents[1] / "fixtures" / "audio"
DEMO = Path(__file__).parents[2] / "clients" / "demo" / "demo.flac"


@dataclass
class Result:
    """What one session saw."""

    latencies_s: list[float] = field(default_factory=list)
    partial_gaps_s: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    retractions: int = 0


def percentile(values: Sequence[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if values else None


async def paced_session(url: str, clip: bytes, seconds: float, delay: float) -> Result:
    """Stream `clip` over and over for `seconds`, in real time."""
    await asyncio.sleep(delay)
    meter, result = LatencyMeter(), Result()
    async with StreamClient(url, Start(language="en")) as client:

        async def send() -> None:
            began = time.monotonic()
            for number in range(int(seconds * RATE / CHUNK)):
                at = number * CHUNK * 2 % len(clip)
                await client.send_audio(clip[at : at + CHUNK * 2])
                sent = (number + 1) * CHUNK / RATE
                meter.sent(sent, time.monotonic())
                await asyncio.sleep(max(0.0, began + sent - time.monotonic()))
            await client.stop()

        sender = asyncio.create_task(send())
        stable: dict[int, str] = {}
        last: tuple[int, float] | None = None
        async for message in client:
            now = time.monotonic()
            meter.received(message, now)
            if isinstance(message, Partial | Final):
                text = message.stable_text if isinstance(message, Partial) else message.text
                if not text.startswith(stable.get(message.segment, "")):
                    result.retractions += 1
                stable[message.segment] = text
            if isinstance(message, Partial):
                if last is not None and last[0] == message.segment:
                    result.partial_gaps_s.append(now - last[1])
                last = (message.segment, now)
            elif isinstance(message, Final):
                result.texts.append(message.text)
        await sender
    result.latencies_s = meter.latencies_s
    return result


async def paced(args: argparse.Namespace) -> dict[str, object]:
    samples = read_audio(DEMO)
    clip = (samples * 32767).astype("<i2").tobytes()
    clip = clip[: len(clip) // (2 * CHUNK) * 2 * CHUNK]
    shift = len(clip) // args.sessions // (2 * CHUNK) * 2 * CHUNK
    results = await asyncio.gather(
        *(
            paced_session(
                args.url,
                clip[i * shift :] + clip[: i * shift],
                args.seconds,
                i * 0.4 / args.sessions,
            )
            for i in range(args.sessions)
        )
    )
    latencies = [latency for result in results for latency in result.latencies_s]
    gaps = [gap for result in results for gap in result.partial_gaps_s]
    return {
        "sessions": args.sessions,
        "seconds": args.seconds,
        "finals": len(latencies),
        "end of speech to final, s": {
            name: percentile(latencies, share)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
        },
        "gap between partials, s": {
            name: percentile(gaps, share)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
        },
        "fewest finals of a session": min(len(result.texts) for result in results),
        "retractions": sum(result.retractions for result in results),
    }


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


async def churn(args: argparse.Namespace) -> dict[str, object]:
    """Short sessions one after the other, a few at a time; the server's memory as they go."""
    samples = read_audio(FIXTURES / "two_sentences.flac")[: int(2.9 * RATE)]
    clip = (samples * 32767).astype("<i2").tobytes()
    done, sizes, started = 0, {}, time.monotonic()

    async def one() -> None:
        async with StreamClient(args.url, Start(language="en")) as client:
            for at in range(0, len(clip), CHUNK * 2):
                await client.send_audio(clip[at : at + CHUNK * 2])
            await client.stop()
            finals = [message async for message in client if isinstance(message, Final)]
            assert finals, "a session ended without a final"

    async def lane() -> None:
        nonlocal done
        while done < args.sessions:
            done += 1
            number = done
            await one()
            if number % 100 == 0:
                sizes[number] = resident_kib(args.pid) / 1024

    await asyncio.gather(*(lane() for _ in range(4)))
    return {
        "sessions": args.sessions,
        "seconds": time.monotonic() - started,
        "server MiB after sessions": sizes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("paced", "churn"))
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pid", type=int, help="the server's, for churn")
    args = parser.parse_args()
    print(json.dumps(asyncio.run(paced(args) if args.mode == "paced" else churn(args))))


if __name__ == "__main__":
    main()
