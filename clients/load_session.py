"""Shell: one simulated session against a real server, on schedule.

Whatever ends it becomes part of its record: a server that is gone is a finding, not a crash.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from clients.audio_source import SAMPLE_BYTES
from clients.client import ConnectError, ConnectionLostError, ServerError, StreamClient
from clients.load_figures import Lateness
from clients.load_meter import SessionMeter
from clients.load_plan import SAMPLE_RATE, SessionPlan
from stream_server.protocol import Start

BYTES_PER_S: Final = SAMPLE_RATE * SAMPLE_BYTES
# From the last audio to `done`. What a server that is far behind still owes is worth waiting for;
# one that has not delivered by then has lost it.
DONE_TIMEOUT_S: Final = 60.0
BLOCKED_S: Final = 0.01  # a send that takes longer waited for the server; handing over takes µs


@dataclass(frozen=True, slots=True)
class Target:
    """Which server, what is asked of it, and how fast it is spoken to."""

    url: str
    start: Start
    speed: float = 1.0
    api_key: str | None = None
    all_msgpack: bool = False
    done_timeout_s: float = DONE_TIMEOUT_S


@dataclass(slots=True)
class Tally:
    """What all sessions of a process do now, and how well it paces them. One loop touches it."""

    num_open: int = 0
    lateness: Lateness = field(default_factory=Lateness)
    blocked_s: float = 0.0


class SimulatedSession:
    """One plan, lived through by `run`. `meter` is told readings in seconds since `begun`."""

    def __init__(
        self,
        plan: SessionPlan,
        chunks: Iterator[bytes],
        target: Target,
        tally: Tally,
        begun: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.meter = SessionMeter(
            plan.number,
            endpoint_silence_s=target.start.endpoint_silence_ms / 1000,
            speed=target.speed,
        )
        self.ended = False
        self._chunks = chunks
        self._target = target
        self._tally = tally
        self._begun = begun
        self._now = now

    async def run(self) -> None:
        """From the wait for its turn to `done`, or to whatever comes instead."""
        await asyncio.sleep(self.plan.starts_at_s / self._target.speed - self._elapsed())
        try:
            await self._converse()
        except ConnectError as exc:
            if exc.status is None:
                self.meter.failed("unreachable", str(exc))
            else:
                self.meter.refused(exc.status, exc.retry_after_s)
        except ServerError as exc:
            self.meter.failed(exc.code, exc.message)
        except ConnectionLostError as exc:
            self.meter.failed("connection_lost", str(exc))
        except TimeoutError:
            limit_s = self._target.done_timeout_s
            self.meter.failed("no_done", f"no done within {limit_s:g} s of the last audio")
        finally:
            self.ended = True

    async def _converse(self) -> None:
        target, dialled = self._target, self._elapsed()
        client = StreamClient(
            target.url,
            target.start,
            api_key=target.api_key,
            msgpack=self.plan.msgpack or target.all_msgpack,
        )
        async with client:
            self._tally.num_open += 1
            self.meter.connected(dialled, self._elapsed())
            sending = asyncio.create_task(self._send(client))
            limit_s = self.plan.samples / SAMPLE_RATE / target.speed + target.done_timeout_s
            try:
                async with asyncio.timeout(limit_s):
                    async for message in client:
                        self.meter.received(message, self._elapsed())
                    await sending
            finally:
                sending.cancel()
                await asyncio.wait([sending])
                self._tally.num_open -= 1

    async def _send(self, client: StreamClient) -> None:
        opened, sent_bytes = self._now(), 0
        try:
            for chunk in self._chunks:
                sent_bytes += len(chunk)
                audio_s = sent_bytes / BYTES_PER_S
                # Due times count from the first chunk, so that late wake-ups do not add up.
                due = opened + audio_s / self._target.speed
                await asyncio.sleep(due - self._now())
                woken = self._now()
                self._tally.lateness.add(woken - due)
                self.meter.sent(audio_s, due - self._begun)
                await client.send_audio(chunk)
                took_s = self._now() - woken
                if took_s > BLOCKED_S:
                    self._tally.blocked_s += took_s
            self.meter.stopped(self._elapsed())
            await client.stop()
        except ConnectionLostError:
            pass  # the reader learns of it too, and with the server's reason

    def _elapsed(self) -> float:
        return self._now() - self._begun
