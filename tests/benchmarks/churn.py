"""The server's memory over many short sessions, one after the other, a few at a time.

    starling serve --model embedded &
    python tests/benchmarks/churn.py --sessions 1000 --pid $(pgrep -f 'starling serve')

The last line is JSON. Not part of the tests: figures are reported, never asserted. Load and
latency are `starling loadtest`'s.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

from clients.client import DEFAULT_URL, StreamClient
from engine.audio.file import read_audio
from stream_server.protocol import Final, Start

RATE = 16_000
CHUNK = RATE // 25
FIXTURES = Path(__file__).parents[1] / "fixtures" / "audio"


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


async def churn(args: argparse.Namespace) -> dict[str, object]:
    """Run the sessions; memory after every hundredth."""
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
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--pid", type=int, required=True, help="the server's")
    print(json.dumps(asyncio.run(churn(parser.parse_args()))))


if __name__ == "__main__":
    main()
