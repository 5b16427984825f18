"""The audio of a load test: clips and backgrounds, prepared once, then only cut.

A folder of clips has a `manifest.tsv`: path, seconds, transcript and further columns, which are
not read; a first line that names columns may put them in another order. Without a folder it is
the clip that the package ships. Everything becomes 16 kHz mono s16le in one file, which all
processes of a load test map: a session's chunk is a slice of it.
"""

import csv
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from clients.audio_source import SAMPLE_BYTES, AudioSourceError, open_audio
from clients.load_plan import SAMPLE_RATE, Kind, SessionPlan

MANIFEST: Final = "manifest.tsv"
BACKGROUND_SAMPLES: Final = 10 * SAMPLE_RATE  # read round and round; no ear is to follow it
# Root mean square of full scale. A quiet room through a good microphone, in which no detector
# finds speech; and a street, whose energy falls with frequency as that of most noise does.
QUIET_RMS: Final = 0.0005
STREET_RMS: Final = 0.03
_BACKGROUNDS: Final[Sequence[Kind]] = ("silence", "noise")  # in this order at the file's beginning


class ClipError(Exception):
    """Clips that cannot be used; the message names the file and what is accepted."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording of somebody speaking, and what is said in it."""

    path: Path
    transcript: str


def read_manifest(folder: Path) -> list[Clip]:
    """The clips of a folder. Raises ClipError."""
    manifest = folder / MANIFEST
    try:
        with manifest.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    except OSError as exc:
        raise ClipError(
            f"{manifest}: {exc.strerror}; accepted: a folder with a {MANIFEST} "
            "of path, seconds and transcript"
        ) from exc
    path_column, transcript_column = 0, 2
    if rows and {"path", "transcript"} <= set(rows[0]):
        names = rows.pop(0)
        path_column, transcript_column = names.index("path"), names.index("transcript")
    if not rows:
        raise ClipError(f"{manifest}: lists no clip; accepted: one per line")
    clips = []
    for number, row in enumerate(rows, start=1):
        if len(row) <= max(path_column, transcript_column):
            raise ClipError(
                f"{manifest}: clip {number} has {len(row)} columns; "
                "accepted: path, seconds, transcript, separated by tabs"
            )
        clips.append(Clip(folder / row[path_column], row[transcript_column]))
    return clips


def shipped_clips() -> list[Clip]:
    """Nine short sentences: what `starling demo` shows."""
    demo = Path(__file__).parent / "demo"
    said = (demo / "demo.txt").read_text("utf-8")
    return [Clip(demo / "demo.flac", " ".join(said.split()))]


@dataclass(frozen=True, slots=True)
class ClipStore:
    """Where on disk the prepared audio lies, and how. Cheap to hand to another process."""

    path: Path
    clip_samples: tuple[int, ...]

    @classmethod
    def prepare(cls, clips: Sequence[Clip], path: Path) -> Self:
        """Decode `clips` into the file `path`. Raises ClipError."""
        lengths = []
        with path.open("wb") as file:
            for kind in _BACKGROUNDS:
                file.write(_background(kind))
            for clip in clips:
                pcm = _decoded(clip.path)
                file.write(pcm)
                lengths.append(len(pcm) // SAMPLE_BYTES)
        return cls(path, tuple(lengths))

    def open(self) -> "PreparedAudio":
        """Map the file."""
        with self.path.open("rb") as file:
            return PreparedAudio(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), self)


class PreparedAudio:
    """All audio of a load test, in memory that every process shares."""

    def __init__(self, pcm: mmap.mmap, store: ClipStore) -> None:
        self._pcm = pcm
        self._clip_samples = store.clip_samples
        first = len(_BACKGROUNDS) * BACKGROUND_SAMPLES
        self._clip_starts = list(accumulate(store.clip_samples, initial=first))

    def clip(self, number: int) -> bytes:
        """One clip as PCM."""
        start = self._clip_starts[number]
        return self._cut(start, start + self._clip_samples[number])

    def chunks(self, plan: SessionPlan) -> Iterator[bytes]:
        """The messages of one session, in order."""
        lengths = plan.chunk_lengths()
        wanted, held = next(lengths), list[bytes]()
        for start, end in self._stretches(plan):
            at = start
            while end - at >= wanted:
                held.append(self._cut(at, at + wanted))
                yield b"".join(held)
                held.clear()
                at, wanted = at + wanted, next(lengths)
            if at < end:
                held.append(self._cut(at, end))
                wanted -= end - at
        if held:
            yield b"".join(held)

    def _stretches(self, plan: SessionPlan) -> Iterator[tuple[int, int]]:
        """Where the session's audio lies in the file, in samples."""
        kind: Kind = "silence" if plan.kind == "speech" else plan.kind
        background = _BACKGROUNDS.index(kind) * BACKGROUND_SAMPLES
        for part in plan.parts:
            if part.clip is not None:
                start = self._clip_starts[part.clip] + part.offset
                yield start, start + part.length
                continue
            at, left = part.offset % BACKGROUND_SAMPLES, part.length
            while left:
                length = min(left, BACKGROUND_SAMPLES - at)
                yield background + at, background + at + length
                at, left = 0, left - length

    def _cut(self, start: int, end: int) -> bytes:
        return self._pcm[start * SAMPLE_BYTES : end * SAMPLE_BYTES]


def _decoded(path: Path) -> bytes:
    """A recording as 16 kHz mono s16le. Raises ClipError."""
    try:
        source = open_audio(path)
        pcm = b"".join(source.chunks)
    except AudioSourceError as exc:
        raise ClipError(str(exc)) from exc
    if (source.sample_rate, source.channels) == (SAMPLE_RATE, 1):
        return pcm
    import soxr  # only WAV files of other rates need it

    frames = np.frombuffer(pcm, "<i2").reshape(-1, source.channels)
    mono = frames.mean(axis=1).astype(np.float32)
    return _s16le(soxr.resample(mono, source.sample_rate, SAMPLE_RATE) / 2**15)


def _background(kind: Kind) -> bytes:
    """Noise, the same in every run; the ends of the stretch fit together."""
    dice = np.random.default_rng(0)
    white = np.fft.rfft(dice.standard_normal(BACKGROUND_SAMPLES))
    if kind == "silence":
        return _s16le(_at_level(np.fft.irfft(white), QUIET_RMS))
    frequencies = np.maximum(np.arange(len(white)), 1)
    return _s16le(_at_level(np.fft.irfft(white / np.sqrt(frequencies)), STREET_RMS))


def _at_level(samples: NDArray[np.float64], rms: float) -> NDArray[np.float64]:
    return np.asarray(samples * (rms / np.sqrt(np.mean(np.square(samples)))))


def _s16le(samples: NDArray[np.floating]) -> bytes:
    return (samples * 2**15).round().clip(-(2**15), 2**15 - 1).astype("<i2").tobytes()
