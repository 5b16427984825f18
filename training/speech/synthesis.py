"""The `speech` command: every sentence spoken by drawn voices, in shards, by parallel processes."""

import csv
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from engine.audio.units import SAMPLE_RATE
from training.errors import RecipeError
from training.human import COLUMNS
from training.progress import progress_bar
from training.speech import espeak, festival, flite, kokoro
from training.speech.clip import Clip, trimmed
from training.speech.shards import write_shard
from training.speech.voices import Synthesiser, draw_voice
from training.text.collection import HELD_OUT_FILE, SENTENCES_FILE, read_sentences

logger = logging.getLogger(__name__)

SHARDS: Final = "shards"
HELD_OUT: Final = "held-out"
_SENTENCES_A_SHARD: Final = 400  # about half an hour; also the unit of resuming
_LONGEST_CLIP: Final = 20 * SAMPLE_RATE
# Every fourth shard is heard as over a poor connection.
_LOW_BIT_RATE_EVERY: Final = 4
_BIT_RATE, _LOW_BIT_RATE = 24_000, 10_000
# What starts each, and what says why it cannot be had.
_ENGINES: Final[Mapping[str, tuple[Callable[[], Synthesiser], Callable[[], str | None]]]] = {
    "espeak": (espeak.Espeak, espeak.lacking),
    "flite": (flite.Flite, flite.lacking),
    "festival": (festival.Festival, festival.lacking),
    "kokoro": (kokoro.Kokoro, kokoro.lacking),
}


@dataclass(frozen=True, slots=True)
class ShardJob:
    """What one shard will hold; the same job always gives the same voices."""

    stem: Path
    texts: tuple[str, ...]
    engines: tuple[str, ...]
    seed: str
    audio_format: str
    bit_rate: int


def installed_engines() -> tuple[str, ...]:
    """The synthesisers for this machine; what lacks is said in the log, with the reason."""
    lacking = {engine: find_lack() for engine, (_, find_lack) in _ENGINES.items()}
    for engine, why in lacking.items():
        if why:
            logger.warning("%s: its voices are missing (%s)", engine, why)
    return tuple(engine for engine, why in lacking.items() if not why)


def shard_jobs(
    directory: Path, texts: Sequence[str], engines: tuple[str, ...], *, rounds: int, fmt: str
) -> list[ShardJob]:
    """The shards for every text `rounds` times, each time by other voices."""
    jobs: list[ShardJob] = []
    for spoken_round in range(rounds):
        for first in range(0, len(texts), _SENTENCES_A_SHARD):
            number = len(jobs)
            low = number % _LOW_BIT_RATE_EVERY == _LOW_BIT_RATE_EVERY - 1
            jobs.append(
                ShardJob(
                    directory / SHARDS / f"shard-{number:05d}",
                    tuple(texts[first : first + _SENTENCES_A_SHARD]),
                    engines,
                    f"{spoken_round}/{first}",
                    fmt,
                    _LOW_BIT_RATE if low else _BIT_RATE,
                )
            )
    return jobs


def speak_shard(job: ShardJob, synthesisers: Mapping[str, Synthesiser]) -> float:
    """Speak and write one shard; returns seconds. What comes out silent is left out."""
    rng = Random(job.seed)

    def spoken() -> Iterator[tuple[str, str, Clip]]:
        for text in job.texts:
            voice = draw_voice(rng, job.engines)
            clip = trimmed(synthesisers[voice.engine].speak(text, voice))
            if clip is not None and len(clip.samples) <= _LONGEST_CLIP:
                yield text, str(voice), clip

    return write_shard(job.stem, spoken(), audio_format=job.audio_format, bit_rate=job.bit_rate)


def synthesise(
    text_directory: Path,
    directory: Path,
    *,
    engines: tuple[str, ...],
    processes: int,
    rounds: int = 1,
    limit: int | None = None,
    fmt: str = "opus",
) -> float:
    """Speak the sentences of `text_directory` into `directory`; returns the hours made now.

    `limit` takes the first sentences only. Shards that are there are not made again.
    """
    if not engines:
        raise RecipeError(
            "expected espeak-ng, flite, festival or kokoro to be installed, found none"
        )
    texts = [sentence.text for sentence in read_sentences(text_directory / SENTENCES_FILE)]
    jobs = shard_jobs(directory, texts[:limit], engines, rounds=rounds, fmt=fmt)
    left = [job for job in jobs if not job.stem.with_suffix(".jsonl").is_file()]
    hours = 0.0
    context = multiprocessing.get_context("spawn")
    with (
        progress_bar("shards", len(jobs), len(jobs) - len(left)) as bar,
        ProcessPoolExecutor(processes, mp_context=context) as pool,
    ):
        for finished in as_completed([pool.submit(_speak_in_process, job) for job in left]):
            hours += finished.result() / 3600
            bar.advance(note=f"{hours:.1f} h")
    return hours


def speak_held_out(
    text_directory: Path,
    directory: Path,
    starting: AbstractContextManager[Mapping[str, Synthesiser]],
) -> Path:
    """Speak what is held out, half by voices of training and half by held-out ones.

    Returns the manifest, in the form that `starling bench wer` takes; FLAC files beside it. What
    is there is not made again, and nothing is started for it.
    """
    manifest = directory / HELD_OUT / "manifest.tsv"
    if manifest.is_file():
        return manifest
    rng = Random(HELD_OUT)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    sentences = read_sentences(text_directory / HELD_OUT_FILE)
    with starting as synthesisers, progress_bar("held out", len(sentences)) as bar:
        for number, sentence in enumerate(sentences):
            bar.advance()
            unheard = number % 2 == 1
            voice = draw_voice(rng, tuple(synthesisers), held_out=unheard)
            clip = trimmed(synthesisers[voice.engine].speak(sentence.text, voice))
            if clip is None:
                continue
            stem = manifest.parent / f"{number:04d}"
            spoken = [(sentence.text, str(voice), clip)]
            write_shard(stem, spoken, audio_format="flac", bit_rate=_BIT_RATE)
            stem.with_suffix(".jsonl").unlink()
            source = "held-out voices" if unheard else "seen voices"
            if sentence.kind == "numbers":
                source = f"numbers, {source}"
            seconds = f"{len(clip.samples) / SAMPLE_RATE:.2f}"
            path = f"{number:04d}.flac"
            rows.append((path, seconds, sentence.text, "en", str(voice), source, "synthetic"))
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
        writer.writerows([COLUMNS, *rows])
    return manifest


@contextmanager
def start_engines(engines: Sequence[str]) -> Iterator[dict[str, Synthesiser]]:
    """The synthesisers of these names, for a while. Raises RecipeError."""
    started = {engine: _ENGINES[engine][0]() for engine in engines}
    try:
        yield started
    finally:
        for synthesiser in started.values():
            if isinstance(synthesiser, festival.Festival):
                synthesiser.close()


# One of each for every process: espeak-ng cannot be had twice in one.
_started: dict[str, Synthesiser] = {}


def _speak_in_process(job: ShardJob) -> float:
    for engine in job.engines:
        if engine not in _started:
            _started[engine] = _ENGINES[engine][0]()
    return speak_shard(job, _started)
