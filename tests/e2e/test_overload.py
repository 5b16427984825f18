"""A dozen people speak to a server whose device is too slow for them: what each of them gets.

The server, its sockets, the worker and the scheduler are real. The model is a fake that hears
the words written into the samples, and every position that it encodes takes a fixed time, so that
the overload is the same on every machine. All that is asserted is what was said, never how fast.
"""

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice, pairwise
from typing import Final, TypeVar

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response

from engine.assembly import Engine
from engine.config import EngineConfig
from engine.events import ModelInfo
from engine.metrics import EngineMetrics
from engine.runtime.pending import Done
from engine.scheduling.contexts import ContextPolicy
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.steps import EncodeStep, Step
from engine.scheduling.utterance import DecodeSetup
from engine.traits import CheckpointTraits
from engine.worker import Worker
from stream_server import protocol
from stream_server.protocol import CODECS, JSON_SUBPROTOCOL
from tests.support.fake_runner import (
    GAP_SAMPLES,
    N_TEXT_CTX,
    WORD_SAMPLES,
    WORDS,
    FakeRunner,
    say,
    silence,
    toy_tokenizer,
)
from tests.support.live_server import serving
from tests.support.scripted_detector import ScriptedDetector
from tests.support.sounds import s16le
from tests.support.workers import running

NUM_SESSIONS: Final = 12
NUM_SLOTS: Final = 16
POSITION_S: Final = 0.0012  # a partial of 2 s takes 154 ms; twelve are asked for every 400 ms
ASKED_MS: Final = 400

# Everybody speaks in beats: a word and the gap behind it, or as much silence.
BEAT_SAMPLES: Final = WORD_SAMPLES + GAP_SAMPLES
BEAT_S: Final = BEAT_SAMPLES / 16_000
REST: Final = ("", "")  # with the last word's gap 800 ms: an end of speech
LOUD_WORDS: Final = WORDS[3:]  # the detector takes the others for silence
NUM_WORDS: Final = 16
PING_BEAT, KNOCK_BEAT = 11, 16  # of 18
RECOVERY_BEATS: Final = int(10 / BEAT_S)  # intervals are as asked again within 10 s of audio

PATIENCE_S: Final = 20  # for what never comes; a pong takes a millisecond

MessageT = TypeVar("MessageT", bound=protocol.ServerMessage)


class SlowRunner:
    """Takes its time over encoding; while `gate` is closed no step is run, and `held` tells."""

    def __init__(self, runner: FakeRunner) -> None:
        self._runner = runner
        self.gate = threading.Event()
        self.gate.set()
        self.held = threading.Event()

    run_ahead = 0

    def launch(self, step: Step) -> Done:
        if not self.gate.is_set():
            self.held.set()
            self.gate.wait()
        started = time.perf_counter()
        if isinstance(step, EncodeStep):
            time.sleep(POSITION_S * step.context * len(step.rows))
        return Done(self._runner.run(step), time.perf_counter() - started)


class Speaker:
    """One session: what is said in it, and what comes back."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.said: list[str] = []  # a word or silence for each beat
        self.received: list[protocol.ServerMessage] = []
        self.close_code: int | None = None
        self._codec = CODECS[JSON_SUBPROTOCOL]
        self._reading = asyncio.create_task(self._read())

    async def send(self, message: protocol.ClientMessage) -> None:
        await self.socket.send(self._codec.encode(message))

    async def speak(self, word: str) -> None:
        """One beat."""
        self.said.append(word)
        samples = say(word) if word else silence(BEAT_SAMPLES)
        await self.send(protocol.Audio(pcm=s16le(samples)))

    async def stop(self) -> None:
        """Say so, and read to the close."""
        await self.send(protocol.Stop())
        await self._reading

    async def _read(self) -> None:
        try:
            while True:
                self.received.append(self._codec.decode_server(await self.socket.recv()))
        except ConnectionClosed as closed:
            self.close_code = closed.rcvd.code if closed.rcvd else 1006

    def all(self, kind: type[MessageT]) -> list[MessageT]:
        return [message for message in self.received if isinstance(message, kind)]

    def intervals_told(self) -> list[int]:
        return [warning.interim_interval_ms for warning in self.all(protocol.WarningMessage)]

    def utterances_said(self) -> list[str]:
        spoken = " ".join(word or "|" for word in self.said).split("|")
        return [words.strip() for words in spoken if words.strip()]

    def utterances_understood(self) -> list[str]:
        finals = self.all(protocol.Final)
        return [final.text.replace(".", "").strip() for final in finals]


@dataclass
class Day:
    """What happened. The first speaker is the one that remains when the others leave."""

    speakers: list[Speaker] = field(default_factory=list)
    told_before_fall: list[int] = field(default_factory=list)
    ping_was_answered: bool = False
    refusal: Response | None = None
    newcomer: Speaker | None = None


def slow_worker() -> tuple[Worker, SlowRunner]:
    """A real worker and scheduler over a slow runner."""
    config, traits = EngineConfig().resolve("cpu"), CheckpointTraits(trimmed_context=True)
    tokenizer, metrics = toy_tokenizer(), EngineMetrics(slots=NUM_SLOTS)
    contexts = ContextPolicy.of(config, trained_trimmed=traits.trimmed_context)
    setup = DecodeSetup(config, tokenizer, contexts, traits, N_TEXT_CTX)
    runner = SlowRunner(FakeRunner(tokenizer, NUM_SLOTS, config.max_batch))
    info = ModelInfo("slow", ("en",), ("transcribe",))
    engine = Engine(info, Scheduler(setup, NUM_SLOTS, metrics), runner, metrics)
    return Worker(config, lambda _: engine), runner


def script(number: int) -> list[str]:
    """Two utterances with different words; everybody's pause is at another time."""
    chance = random.Random(number)
    words = chance.choices(LOUD_WORDS, k=NUM_WORDS)
    first = 4 + number % (NUM_WORDS - 7)
    return [*words[:first], *REST, *words[first:]]


async def knock(url: str) -> Response | None:
    """What one connection more is refused with; None if it is let in."""
    try:
        async with connect(url, compression=None):
            return None
    except InvalidStatus as refused:
        return refused.response


async def is_answered_while_the_engine_stands(speaker: Speaker, runner: SlowRunner) -> bool:
    """Stop the engine within a step; whether a ping is answered before it goes on."""
    runner.gate.clear()
    try:
        await asyncio.to_thread(runner.held.wait)
        pong = await speaker.socket.ping()
        answered, _ = await asyncio.wait([asyncio.ensure_future(pong)], timeout=PATIENCE_S)
        return bool(answered)
    finally:
        runner.gate.set()


class Metronome:
    """Beats in real time; what was late is caught up with."""

    def __init__(self) -> None:
        self._next = asyncio.get_running_loop().time()

    async def beat(self, speakers: Sequence[Speaker], words: Sequence[str]) -> None:
        """Everybody says one beat."""
        await asyncio.sleep(self._next - asyncio.get_running_loop().time())
        self._next += BEAT_S
        for speaker, word in zip(speakers, words, strict=True):
            await speaker.speak(word)


async def spend_the_day(url: str, runner: SlowRunner) -> Day:
    """Overload, one knock and one ping; then all but one leave, and somebody new comes."""
    day = Day()
    async with AsyncExitStack() as sockets:

        async def enter() -> Speaker:
            dialled = connect(url, compression=None, max_queue=None)
            speaker = Speaker(await sockets.enter_async_context(dialled))
            await speaker.send(protocol.Start(interim_interval_ms=ASKED_MS))
            return speaker

        day.speakers = [await enter() for _ in range(NUM_SESSIONS)]
        remaining, *others = day.speakers
        metronome = Metronome()
        scripts = [script(number) for number in range(NUM_SESSIONS)]
        for beat, words in enumerate(zip(*scripts, strict=True)):
            await metronome.beat(day.speakers, words)
            if beat == PING_BEAT:
                day.ping_was_answered = await is_answered_while_the_engine_stands(remaining, runner)
            if beat == KNOCK_BEAT:
                day.refusal = await knock(url)

        day.told_before_fall = remaining.intervals_told()
        leaving = asyncio.gather(*(speaker.stop() for speaker in others))
        for word in islice(cycle((*REST, *LOUD_WORDS[:6])), RECOVERY_BEATS):
            await metronome.beat([remaining], [word])
            if remaining.intervals_told()[-1:] == [ASKED_MS]:
                break
        await leaving
        day.newcomer = await enter()
        await day.newcomer.stop()
        await remaining.stop()
    return day


@pytest.fixture(scope="module")
def day() -> Iterator[Day]:
    worker, runner = slow_worker()
    detector = ScriptedDetector()
    detector.start()
    try:
        with running(worker), serving(worker, detector, max_sessions=1000) as server:
            yield asyncio.run(spend_the_day(server.url, runner))
    finally:
        detector.stop()


def test_every_utterance_has_its_final_and_no_connection_is_lost(day: Day) -> None:
    for speaker in day.speakers:
        assert speaker.utterances_understood() == speaker.utterances_said()
        finals = speaker.all(protocol.Final)
        assert [final.segment for final in finals] == list(range(len(finals)))
        assert all(before.end <= after.start for before, after in pairwise(finals))
        assert isinstance(speaker.received[-1], protocol.Done)
        assert speaker.close_code == protocol.CLOSE_DONE


def test_clients_are_told_of_intervals_longer_than_they_asked_for(day: Day) -> None:
    """Most of them: one that gets no more than a first partial or two need not hear of it."""
    told = [speaker for speaker in day.speakers if speaker.intervals_told()]
    assert len(told) > NUM_SESSIONS // 2
    for speaker in told:
        assert {warning.code for warning in speaker.all(protocol.WarningMessage)} == {"lagging"}
        assert max(speaker.intervals_told()) > ASKED_MS


def test_one_more_than_the_measured_capacity_is_refused_while_the_others_go_on(day: Day) -> None:
    assert day.refusal is not None
    assert day.refusal.status_code == 503
    assert int(day.refusal.headers["retry-after"]) > 0
    # Everybody spoke on, and was understood, behind the knock.
    assert all(len(speaker.said) > KNOCK_BEAT + 1 for speaker in day.speakers)
    assert all(len(speaker.utterances_understood()) >= 2 for speaker in day.speakers)


def test_when_the_others_have_left_the_interval_is_told_to_be_as_asked_again(day: Day) -> None:
    assert day.told_before_fall[-1] > ASKED_MS
    assert day.speakers[0].intervals_told()[-1] == ASKED_MS


def test_when_the_others_have_left_there_is_a_place_again(day: Day) -> None:
    assert day.newcomer is not None
    assert isinstance(day.newcomer.received[0], protocol.Ready)
    assert day.newcomer.close_code == protocol.CLOSE_DONE


def test_a_ping_is_answered_while_the_engine_is_saturated(day: Day) -> None:
    assert day.ping_was_answered
