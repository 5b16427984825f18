"""Recordings as the chunks a live microphone would have sent: pcm_s16le, 40 ms each, on schedule.

Plain PCM WAV is read with the standard library and sent at its own rate, as the server resamples;
every other format goes through PyAV to 16 kHz mono. `-` is standard input: WAV when it begins with
RIFF, else raw pcm_s16le, 16 kHz, mono.
"""

import asyncio
import io
import sys
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np

CHUNK_MS: Final = 40  # two hops of a telephone: short against any latency, long against a syscall
PCM_RATE: Final = 16_000  # of raw standard input and of what PyAV decodes
MIN_RATE, MAX_RATE = 8_000, 48_000  # what the protocol takes; a WAV outside goes through PyAV
SAMPLE_BYTES: Final = 2


class AudioSourceError(Exception):
    """A recording that cannot be read; the message says which, why and what would do."""


@dataclass(frozen=True, slots=True)
class AudioSource:
    """A recording about to be sent. Its chunks can be taken once."""

    sample_rate: int
    channels: int
    chunks: Iterator[bytes]  # pcm_s16le, CHUNK_MS each but the last

    def seconds(self, num_bytes: int) -> float:
        """Duration of so many bytes of this source."""
        return num_bytes / (SAMPLE_BYTES * self.channels * self.sample_rate)

    async def paced(
        self,
        speed: float = 1.0,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> AsyncIterator[bytes]:
        """The chunks at `speed` times real time, or without any wait where it is 0.

        A chunk is due when a microphone would have it whole. Due times count from the first
        chunk, not from the one before, so that late wake-ups do not add up.
        """
        begun, sent_bytes = now(), 0
        # Reading may block (a pipe, a decoder): off the event loop.
        while chunk := await asyncio.to_thread(next, self.chunks, b""):
            sent_bytes += len(chunk)
            if speed > 0:
                early_s = begun + self.seconds(sent_bytes) / speed - now()
                if early_s > 0:
                    await sleep(early_s)
            yield chunk


def open_audio(path: str | Path, stdin: BinaryIO | None = None) -> AudioSource:
    """Open a recording, or standard input for `-`. Raises AudioSourceError."""
    if str(path) == "-":
        return _from_stdin(stdin or sys.stdin.buffer)
    path = Path(path)
    if not path.is_file():
        raise AudioSourceError(f"{path}: no such file; accepted: an audio file, or - for stdin")
    try:
        with path.open("rb") as file, wave.open(file) as reader:
            rate, channels = _sendable(reader)
    except (wave.Error, EOFError):
        return _through_av(path)
    return AudioSource(rate, channels, _wav_file_chunks(path))


def _chunk_bytes(sample_rate: int, channels: int) -> int:
    return sample_rate * CHUNK_MS // 1000 * channels * SAMPLE_BYTES


def _from_stdin(stdin: BinaryIO) -> AudioSource:
    if stdin.isatty():
        raise AudioSourceError(
            "standard input is a terminal; accepted: WAV or raw 16 kHz mono s16le through a pipe"
        )
    head = stdin.read(4)
    joined = cast(BinaryIO, io.BufferedReader(_Joined(head, stdin)))
    if head == b"RIFF":
        try:
            reader = wave.open(joined)  # noqa: SIM115  # standard input is not ours to close
            return AudioSource(*_sendable(reader), _wav_chunks(reader))
        except (wave.Error, EOFError) as exc:
            raise AudioSourceError(f"standard input: {exc}; accepted: PCM WAV") from exc
    size = _chunk_bytes(PCM_RATE, 1)
    return AudioSource(PCM_RATE, 1, iter(lambda: joined.read(size), b""))


class _Joined(io.RawIOBase):
    """A stream with the bytes that were taken off its front to look at."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # always a memoryview
        data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        data = data or self._rest.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _sendable(reader: wave.Wave_read) -> tuple[int, int]:
    """Rate and channels. Raises wave.Error for what the protocol does not take as it is."""
    rate, channels, width = reader.getframerate(), reader.getnchannels(), reader.getsampwidth()
    if not MIN_RATE <= rate <= MAX_RATE or channels > 2 or width > 4:
        raise wave.Error(f"{rate} Hz, {channels} channels, {8 * width} bits")
    return rate, channels


def _wav_file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file, wave.open(file) as reader:
        yield from _wav_chunks(reader)


def _wav_chunks(reader: wave.Wave_read) -> Iterator[bytes]:
    while data := reader.readframes(reader.getframerate() * CHUNK_MS // 1000):
        yield _to_s16(data, reader.getsampwidth())


def _to_s16(data: bytes, width: int) -> bytes:
    """Little-endian WAV samples of 8 (unsigned), 16, 24 or 32 bits to 16."""
    if width == 2:
        return data
    samples = np.frombuffer(data, np.uint8).reshape(-1, width)
    if width == 1:
        return ((samples[:, 0].astype("<i2") - 128) << 8).astype("<i2").tobytes()
    return samples[:, -2:].tobytes()  # the upper two bytes are the 16-bit sample


def _through_av(path: Path) -> AudioSource:
    try:
        import av
    except ImportError as exc:
        raise AudioSourceError(
            f"{path}: reading anything but PCM WAV needs PyAV; accepted: pip install av"
        ) from exc
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise AudioSourceError(f"{path}: holds no audio stream")
    except (av.FFmpegError, OSError) as exc:
        raise AudioSourceError(f"{path}: not an audio file that FFmpeg reads: {exc}") from exc

    def decoded() -> Iterator[bytes]:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=PCM_RATE)
        try:
            with av.open(str(path)) as container:
                for frame in container.decode(audio=0):
                    for part in resampler.resample(frame):
                        yield part.to_ndarray().tobytes()
                for part in resampler.resample(None):
                    yield part.to_ndarray().tobytes()
        except av.FFmpegError as exc:
            raise AudioSourceError(f"{path}: damaged: {exc}") from exc

    return AudioSource(PCM_RATE, 1, _in_chunks(decoded(), _chunk_bytes(PCM_RATE, 1)))


def _in_chunks(parts: Iterator[bytes], size: int) -> Iterator[bytes]:
    held = bytearray()
    for part in parts:
        held += part
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
