"""What is heard, with the embedded model: through the engine, and through a server's websockets."""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect

from clients.audio_source import open_audio
from clients.client import StreamClient, transcribe
from engine import offline
from engine.audio.units import SAMPLE_RATE, Samples, samples_from_seconds
from engine.events import (
    AppendAudio,
    FinishUtterance,
    OpenUtterance,
    UtteranceId,
    UtteranceOptions,
)
from engine.worker import Worker
from stream_server import transcribe_command
from stream_server.protocol import (
    CODECS,
    JSON_SUBPROTOCOL,
    Audio,
    Done,
    Final,
    Partial,
    Ready,
    ServerMessage,
    SpeechStarted,
    Start,
)
from tests.support.clips import DEMO, MONOLOGUE, REPOSITORY, TWO_SENTENCES, read_clip
from tests.support.engines import Audio as Samples32
from tests.support.engines import Driver, load_engine
from tests.support.server_process import EMBEDDED, server_process
from tests.support.sounds import s16le, silence
from tests.support.words import occurrences, word_error_rate, words_of
from tests.support.workers import EMBEDDED_CONFIG, running

# The final is then the free decode of the whole segment, whatever came before it.
FREE = Start(append_only=False)
FREE_OPTIONS = UtteranceOptions(append_only=False)
LOUD = 0.3  # louder than speech: not rejected for being faint


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server_process() as address:
        yield address


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with running(Worker(EMBEDDED_CONFIG)) as started:
        yield started


def stream(url: str, pcm: bytes, start: Start, chunk_bytes: int = 3200) -> list[ServerMessage]:
    """Everything that a session says to `pcm`, sent as fast as the server takes it."""

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(pcm), chunk_bytes):
            yield pcm[at : at + chunk_bytes]

    return asyncio.run(collect(url, chunks(), start))


async def collect(url: str, audio: AsyncIterator[bytes], start: Start) -> list[ServerMessage]:
    return [message async for message in transcribe(url, audio, start)]


def finals_of(messages: Sequence[ServerMessage]) -> list[Final]:
    return [message for message in messages if isinstance(message, Final)]


def texts_of(messages: Sequence[ServerMessage]) -> list[str]:
    return [final.text for final in finals_of(messages)]


@cache
def lines_beside(clip: Path) -> list[str]:
    """The sentences that the clip was made from."""
    return clip.with_suffix(".txt").read_text().splitlines()


# --- the same speech gives the same text ------------------------------------------------------


def test_the_engine_hears_the_same_however_the_audio_was_cut_into_chunks() -> None:
    """Long enough for a cut, so that what is chunked is two segments."""
    clip = read_clip(MONOLOGUE)[: 12 * SAMPLE_RATE]
    anywhere = np.sort(np.random.default_rng(0).integers(0, len(clip), size=25))
    drafting, plain = (
        load_engine(REPOSITORY / "engine" / "embedded", replace(EMBEDDED_CONFIG, use_drafts=drafts))
        for drafts in (True, False)
    )
    said = []
    for number, (engine, chunks) in enumerate(
        (
            (plain, [clip]),
            (drafting, [clip]),
            (drafting, np.split(clip, range(640, len(clip), 640))),
            (drafting, np.split(clip, anywhere)),
        )
    ):
        utterance_id, driver = UtteranceId(number), Driver(engine)
        driver.send(OpenUtterance(utterance_id, Samples(0), FREE_OPTIONS))
        for chunk in chunks:
            driver.send(AppendAudio(utterance_id, chunk))
        driver.send(FinishUtterance(utterance_id))
        finals = driver.closed(number)
        said.append([(final.start, final.end, final.tokens, final.text) for final in finals])
    assert len(said[0]) > 1
    assert said == [said[0]] * len(said)
    assert drafting.metrics.accepted > 0


def test_a_server_hears_the_same_however_the_bytes_were_cut_into_frames(url: str) -> None:
    """333 bytes end inside of a sample every other time."""
    pcm = s16le(
        np.concatenate([read_clip(TWO_SENTENCES), read_clip(MONOLOGUE)[: 12 * SAMPLE_RATE]])
    )
    said = [
        [
            (final.segment, final.start, final.end, final.text)
            for final in finals_of(stream(url, pcm, FREE, chunk_bytes))
        ]
        for chunk_bytes in (333, 3200, 32_000)
    ]
    assert len(said[0]) > 2
    assert said[0] == said[1] == said[2]


def test_what_is_streamed_becomes_the_text_that_is_transcribed(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    transcribe_command.add_arguments(parser)
    wanted = [*EMBEDDED, "--no-timestamps", str(TWO_SENTENCES), str(DEMO)]
    assert transcribe_command.run(parser.parse_args(wanted)) == 0
    transcribed = capsys.readouterr().out.splitlines()
    streamed = [
        text
        for clip in (TWO_SENTENCES, DEMO)
        for text in texts_of(stream(url, s16le(read_clip(clip)), FREE))
    ]
    assert streamed == transcribed
    said = [*lines_beside(TWO_SENTENCES), *lines_beside(DEMO)]
    assert word_error_rate(words_of(" ".join(said)), words_of(" ".join(streamed))) < 0.05


# --- live -------------------------------------------------------------------------------------


def test_text_that_was_promised_to_a_live_listener_is_never_taken_back(url: str) -> None:
    messages = asyncio.run(collect(url, open_audio(DEMO).paced(speed=4), Start()))
    stable: dict[int, str] = {}
    revisions: dict[int, int] = {}
    num_promised = 0
    for message in messages:
        if isinstance(message, Partial):
            promised = stable.get(message.segment, "")
            assert message.stable_text.startswith(promised)
            assert message.text.startswith(message.stable_text)
            assert message.revision > revisions.get(message.segment, -1)
            assert message.start <= message.stable_end <= message.end
            stable[message.segment] = message.stable_text
            revisions[message.segment] = message.revision
            num_promised += message.stable_text != promised
        elif isinstance(message, Final):
            assert message.text.startswith(stable.pop(message.segment, ""))
    assert stable == {}, "a segment that was begun has no final"
    assert num_promised > 3
    said = words_of(" ".join(lines_beside(DEMO)))
    assert word_error_rate(said, words_of(" ".join(texts_of(messages)))) < 0.08


def test_a_client_that_is_killed_disturbs_no_other(url: str) -> None:
    """It is killed when its own speech is being decoded, and the other's has begun."""
    clip = s16le(read_clip(TWO_SENTENCES))
    undisturbed = texts_of(stream(url, clip, FREE))

    async def killed_and_steady() -> list[ServerMessage]:
        codec = CODECS[JSON_SUBPROTOCOL]
        async with StreamClient(url, FREE) as steady:
            await steady.send_audio(clip[:32_000])
            socket = await connect(url, compression=None)
            await socket.send(codec.encode(Start()))
            for at in range(0, len(clip) // 2, 32_000):
                await socket.send(codec.encode(Audio(pcm=clip[at : at + 32_000])))
            heard = codec.decode_server(await socket.recv())
            while not isinstance(heard, SpeechStarted):
                heard = codec.decode_server(await socket.recv())
            socket.transport.abort()
            for at in range(32_000, len(clip), 32_000):
                await steady.send_audio(clip[at : at + 32_000])
            await steady.stop()
            return [message async for message in steady]

    messages = asyncio.run(killed_and_steady())
    assert texts_of(messages) == undisturbed
    assert isinstance(messages[-1], Done)
    assert texts_of(stream(url, clip, FREE)) == undisturbed


# --- nobody speaks ----------------------------------------------------------------------------


def noise() -> Samples32:
    generator = np.random.default_rng(0)
    return (LOUD * generator.standard_normal(10 * SAMPLE_RATE)).clip(-1, 1).astype(np.float32)


def whistle() -> Samples32:
    time = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    return (LOUD * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


SOUNDS: dict[str, Callable[[], Samples32]] = {
    "silence": lambda: silence(10),
    "noise": noise,
    "whistle": whistle,
}


@pytest.mark.parametrize("sound", SOUNDS)
def test_a_session_in_which_nobody_speaks_has_no_text(url: str, sound: str) -> None:
    messages = stream(url, s16le(SOUNDS[sound]()), Start())
    assert [text for text in texts_of(messages) if text] == []
    assert isinstance(messages[0], Ready)
    done = messages[-1]
    assert isinstance(done, Done)
    assert done.audio_s == 10


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("sound", SOUNDS)
def test_the_engine_hears_no_words_in_it_even_without_a_detector(
    worker: Worker, sound: str, *, timestamps: bool
) -> None:
    options = UtteranceOptions(interim_results=False, append_only=False, timestamps=timestamps)
    segments = list(offline.transcribe(worker, SOUNDS[sound](), options))
    assert [segment.text for segment in segments if segment.text] == []


# --- long speech ------------------------------------------------------------------------------


def assert_every_word_once(texts: Sequence[str]) -> None:
    """Against what was read, in which every sentence is another."""
    sentences = [words_of(line) for line in lines_beside(MONOLOGUE)]
    heard = words_of(" ".join(texts))
    assert word_error_rate([word for sentence in sentences for word in sentence], heard) < 0.08
    assert [sentence for sentence in sentences if occurrences(sentence, heard) > 1] == []


def test_ninety_seconds_of_speech_are_heard_once_each_word(worker: Worker) -> None:
    clip = read_clip(MONOLOGUE)
    options = UtteranceOptions(interim_results=False, append_only=False)
    segments = list(offline.transcribe(worker, clip, options))
    assert len(segments) > 8
    assert [segment.segment for segment in segments] == list(range(len(segments)))
    edges = [0, *(segment.end for segment in segments)]
    assert [segment.start for segment in segments] == edges[:-1]
    assert edges[-1] == len(clip)
    assert_every_word_once([segment.text for segment in segments])


def test_ninety_seconds_that_are_streamed_are_one_utterance_in_several_segments(url: str) -> None:
    messages = stream(url, s16le(read_clip(MONOLOGUE)), FREE)
    finals = finals_of(messages)
    assert [final.segment for final in finals] == list(range(len(finals)))
    assert len(finals) > 8
    assert sum(isinstance(message, SpeechStarted) for message in messages) == 1
    for before, after in pairwise(finals):
        assert samples_from_seconds(after.start) == samples_from_seconds(before.end)
    assert_every_word_once([final.text for final in finals])


# --- the demonstration ------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_the_demo_shows_every_sentence_and_ends_where_there_is_no_terminal() -> None:
    """In real time: the clip alone is 28 s."""
    ran = subprocess.run(
        [sys.executable, "-m", "stream_server", "demo", "--port", "0"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    finals = [line for line in ran.stdout.splitlines() if line.startswith("[") and "~" not in line]
    said = words_of(" ".join(lines_beside(DEMO)))
    heard = words_of(" ".join(line.partition("]")[2] for line in finals))
    assert word_error_rate(said, heard) < 0.08
    assert "~" in ran.stdout, "captions while it is spoken"
