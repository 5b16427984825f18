"""Everything there is to hear: shards and human recordings, as raw audio that is mapped.

Compressed audio is decoded once, into a folder of its own; raw shards are read in place. What
is decoded stays: a later run goes on from it, and finds what has been added since.
"""

import hashlib
import logging
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.audio.file import read_audio
from engine.audio.units import SAMPLE_RATE
from training.errors import RecipeError
from training.human import Manifest, Recording, read_manifest
from training.progress import progress_bar
from training.speech.shards import (
    RAW,
    Utterance,
    audio_of,
    read_utterances,
    write_utterances,
)

logger = logging.getLogger(__name__)

HUMAN: Final = "human"
_RECORDINGS_A_FILE: Final = 200
_PEAK: Final = 0.65


@dataclass(frozen=True, slots=True)
class Sources:
    """Where audio lies: shards, manifests of human speech, and where decoded audio goes.

    Each manifest of `people` has its weight: how often its recordings are heard for one time
    that synthetic speech is.
    """

    shards: Path
    people: tuple[tuple[Path, int], ...]
    decoded: Path


@dataclass(frozen=True, slots=True)
class Located:
    """An utterance, the raw file that it lies in, and how often it is heard."""

    audio: Path
    utterance: Utterance
    weight: int = 1

    def samples(self, start: int, length: int) -> NDArray[np.int16]:
        """A stretch of it, mapped: nothing is read before it is used."""
        size = np.dtype(np.int16).itemsize
        begin = (self.utterance.start + start) * size
        return np.memmap(self.audio, np.int16, "r", offset=begin, shape=(length,))


def decode(sources: Sources, *, processes: int) -> list[Manifest]:
    """Decode what is not decoded yet; returns the manifests of human speech."""
    jobs: list[tuple[Path, Path | tuple[Recording, ...]]] = []
    for lines in sorted(sources.shards.glob("*.jsonl")):
        target = sources.decoded / "synthetic" / lines.stem
        if audio_of(lines).suffix != f".{RAW}" and not _is_decoded(target):
            jobs.append((target, lines))
    manifests = []
    for path, _ in sources.people:
        manifest = read_manifest(path)
        manifests.append(manifest)
        if manifest.num_left_out:
            logger.warning("%s: %d recordings cannot be used", path, manifest.num_left_out)
        for first in range(0, len(manifest.recordings), _RECORDINGS_A_FILE):
            target = _decoded_people(sources, path) / f"{first:06d}"
            if not _is_decoded(target):
                jobs.append((target, manifest.recordings[first : first + _RECORDINGS_A_FILE]))
    if not jobs:
        return manifests
    with progress_bar("decoding", len(jobs)) as bar:
        if processes == 0:
            for job in jobs:
                _decode_one(job)
                bar.advance()
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(processes, mp_context=context) as pool:
                for _ in pool.map(_decode_one, jobs):
                    bar.advance()
    return manifests


def find_utterances(
    sources: Sources, known: Collection[Path] = ()
) -> tuple[list[Located], list[Located]]:
    """What can be heard now: synthetic and human utterances; none of the `known` raw files."""
    synthetic: list[Located] = []
    for lines in sorted(sources.shards.glob("*.jsonl")):
        raw = lines.with_suffix(f".{RAW}")
        if not raw.is_file():
            raw = sources.decoded / "synthetic" / f"{lines.stem}.{RAW}"
        if raw in known or not (raw.is_file() and raw.with_suffix(".jsonl").is_file()):
            continue
        synthetic += (Located(raw, utterance) for utterance in read_utterances(lines))
    human: list[Located] = []
    for path, weight in sources.people:
        for lines in sorted(_decoded_people(sources, path).glob("*.jsonl")):
            if (raw := lines.with_suffix(f".{RAW}")) not in known:
                human += (Located(raw, utterance, weight) for utterance in read_utterances(lines))
    return synthetic, human


def hours_by_engine(synthetic: Sequence[Located]) -> dict[str, float]:
    """How long they are by synthesiser: what a voice's name has before ":" or "-"."""
    samples: Counter[str] = Counter()
    for located in synthetic:
        engine = re.split("[:-]", located.utterance.voice, maxsplit=1)[0]
        samples[engine] += located.utterance.length
    return {engine: count / SAMPLE_RATE / 3600 for engine, count in samples.items()}


def hours_of(utterances: Sequence[Located]) -> float:
    """How long they are together."""
    return sum(located.utterance.length for located in utterances) / SAMPLE_RATE / 3600


def _decoded_people(sources: Sources, manifest: Path) -> Path:
    """Where the recordings of `manifest` go: another folder where it lies or reads otherwise."""
    digest = hashlib.sha256(os.fsencode(manifest.resolve()))
    digest.update(manifest.read_bytes())
    return sources.decoded / HUMAN / digest.hexdigest()[:16]


def _is_decoded(target: Path) -> bool:
    return target.with_suffix(".jsonl").is_file()


def _decode_one(job: tuple[Path, Path | tuple[Recording, ...]]) -> None:
    """One shard, or some recordings, to a raw file and its lines."""
    target, source = job
    target.parent.mkdir(parents=True, exist_ok=True)
    raw = target.with_suffix(f".{RAW}")
    if isinstance(source, Path):
        samples = as_integers(read_audio(audio_of(source)))
        utterances = list(read_utterances(source))
        needed = max((u.start + u.length for u in utterances), default=0)
        if len(samples) < needed:
            raise RecipeError(f"{source}: expected {needed} samples beside it, got {len(samples)}")
        samples.tofile(raw)
    else:
        utterances = _write_recordings(raw, source)
    write_utterances(target.with_suffix(".jsonl"), utterances)


def _write_recordings(raw: Path, recordings: Sequence[Recording]) -> list[Utterance]:
    utterances = []
    at = 0
    with raw.open("wb") as file:
        for recording in recordings:
            heard = read_audio(recording.path)
            samples = as_integers(heard * (_PEAK / max(float(np.abs(heard).max()), 1e-3)))
            samples.tofile(file)
            utterances.append(
                Utterance(
                    recording.text, at, len(samples), None, recording.speaker, recording.certain
                )
            )
            at += len(samples)
    return utterances


def as_integers(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples between -1 and 1 as 16-bit integers."""
    return np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)
