"""Shards: some hundred clips in one audio file, and a line for each beside it.

`shard-00012.opus` (or `.flac`, or `.s16`, raw and read in place) holds the clips behind each
other; `shard-00012.jsonl` says where each lies, what it says, where its words end and who
speaks. The lines are written last: a shard that has them is whole.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE
from training.errors import RecipeError
from training.speech.clip import Clip

RAW: Final = "s16"
_CODECS: Final = {"opus": "libopus", "flac": "flac"}
FORMATS: Final = (*_CODECS, RAW)
# Between clips, so that a codec's echo of one is not heard in the next.
_GAP: Final = np.zeros(SAMPLE_RATE // 10, np.int16)


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of a raw audio file that is one utterance; times in samples.

    `word_ends` counts from `start`, one per word of `text`, or is None where nobody knows.
    `certain` is False where case and punctuation of `text` are not known.
    """

    text: str
    start: int
    length: int
    word_ends: tuple[int, ...] | None
    voice: str
    certain: bool = True


def write_shard(
    stem: Path, spoken: Iterable[tuple[str, str, Clip]], *, audio_format: str, bit_rate: int
) -> float:
    """Write (text, voice, clip) to `stem` with its suffixes; returns seconds of audio."""
    parts: list[NDArray[np.int16]] = []
    utterances = []
    at = 0
    for text, voice, clip in spoken:
        length = len(clip.samples)
        utterances.append(Utterance(text, at, length, clip.word_ends, voice))
        parts += [clip.samples, _GAP]
        at += length + len(_GAP)
    samples = np.concatenate([*parts, _GAP])
    stem.parent.mkdir(parents=True, exist_ok=True)
    audio = stem.with_suffix(f".{audio_format}")
    if audio_format == RAW:
        samples.tofile(audio)
    else:
        encode(audio, samples, audio_format, bit_rate)
    write_utterances(stem.with_suffix(".jsonl"), utterances)
    return at / SAMPLE_RATE


def write_utterances(path: Path, utterances: Iterable[Utterance]) -> None:
    """A line of JSON for each, whole or not at all."""
    partial = path.with_suffix(".partial")
    lines = (json.dumps(asdict(utterance), ensure_ascii=False) for utterance in utterances)
    partial.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    partial.rename(path)


def read_utterances(path: Path) -> Iterator[Utterance]:
    """The utterances of a `.jsonl` file. Raises RecipeError."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            fields = json.loads(line)
            ends = fields.pop("word_ends")
            yield Utterance(word_ends=None if ends is None else tuple(ends), **fields)
        except (ValueError, TypeError, KeyError) as exc:
            raise RecipeError(f"{path}: expected an utterance in line {number}: {exc}") from exc


def audio_of(lines: Path) -> Path:
    """The audio file beside the `.jsonl` file of a shard. Raises RecipeError."""
    for suffix in FORMATS:
        if (audio := lines.with_suffix(f".{suffix}")).is_file():
            return audio
    raise RecipeError(f"{lines}: expected audio beside it ({', '.join(FORMATS)}), found none")


def encode(path: Path, samples: NDArray[np.int16], audio_format: str, bit_rate: int) -> None:
    """Write `samples` [n] at 16 kHz as Opus (`bit_rate` bit/s) or FLAC."""
    codec = _CODECS[audio_format]
    is_opus = audio_format == "opus"
    # Opus at its quickest is as good as needed, and three times as quick as its default.
    options = {"compression_level": "3"} if is_opus else {}
    with av.open(str(path), "w", format="ogg" if is_opus else None) as container:
        stream = container.add_stream(codec, rate=SAMPLE_RATE, options=options)
        if not isinstance(stream, AudioStream):
            raise RecipeError(f"{path}: expected {codec} to be an audio codec")
        stream.layout = "mono"
        if is_opus:
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for piece in (frame, None):
            container.mux(stream.encode(piece))
