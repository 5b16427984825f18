"""Recordings with transcripts, as a manifest lists them, and degraded copies of them.

A manifest is a table, columns parted by tabs, with a header; more columns than are named here do
not matter. Paths are relative to it.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE
from engine.errors import AudioError

Audio = NDArray[np.float32]  # [samples], 16 kHz mono
Degrade = Callable[[Audio, int], Audio]  # the int seeds what is random

GROUPINGS: Final = ("source", "folder", "speaker", "language")
_COLUMNS: Final = ("path", "seconds", "transcript", "language", "speaker", "source")

_BAND_HZ: Final = (300.0, 3400.0)  # of a telephone line (ITU-T G.712)
_EDGE_HZ: Final = 100.0  # over which each side of it rises: no ringing at hard edges
_MU: Final = 255.0  # of mu-law (ITU-T G.711); its curve itself, not its chords
_LEVELS: Final = 127.0  # of 8 bits, on each side of 0


@dataclass(frozen=True, slots=True)
class Recording:
    """A line of a manifest."""

    path: Path
    seconds: float  # as the manifest says; for progress alone
    transcript: str
    language: str
    speaker: str
    source: str

    def group(self, grouping: str) -> str:
        """What `grouping`, one of GROUPINGS, puts it under."""
        if grouping == "folder":
            return self.path.parent.name
        value: str = getattr(self, grouping)
        return value


def read_manifest(path: Path) -> list[Recording]:
    """The recordings that a manifest lists.

    Raises AudioError that names the file, and the line where there is one to name.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = [name for name in _COLUMNS if name not in (lines.fieldnames or ())]
            if missing:
                raise AudioError(f"{path}: expected the columns {', '.join(missing)} in its header")
            return [_recording(path, lines.line_num, line) for line in lines]
    except (OSError, UnicodeDecodeError) as exc:
        raise AudioError(f"{path}: cannot be read as a manifest: {exc}") from exc


def _recording(manifest: Path, number: int, line: Mapping[str, str | None]) -> Recording:
    values = {name: line[name] for name in _COLUMNS}
    given = {name: value for name, value in values.items() if value is not None}
    try:
        seconds = float(given.get("seconds", ""))
    except ValueError:
        seconds = 0.0
    if len(given) < len(_COLUMNS) or seconds <= 0:
        raise AudioError(f"{manifest}: line {number}: expected {', '.join(_COLUMNS)}, got {values}")
    return Recording(
        manifest.parent / given["path"],
        seconds,
        given["transcript"],
        given["language"],
        given["speaker"],
        given["source"],
    )


def in_groups(recordings: Iterable[Recording], grouping: str) -> dict[str, list[Recording]]:
    """The recordings by group, in order of first appearance."""
    groups: dict[str, list[Recording]] = {}
    for recording in recordings:
        groups.setdefault(recording.group(grouping), []).append(recording)
    return groups


def spread(recordings: Sequence[Recording], limit: int) -> list[Recording]:
    """At most `limit` of them, evenly from the whole list: neighbours are often one speaker's."""
    if len(recordings) <= limit:
        return list(recordings)
    return [recordings[place * len(recordings) // limit] for place in range(limit)]


def copies(noise_db: float | None, *, telephone: bool) -> dict[str, Degrade]:
    """The copies to hear, by name: as recorded, and what was asked for beside it."""
    found: dict[str, Degrade] = {"as recorded": lambda samples, _: samples}
    if noise_db is not None:
        found[f"noise {noise_db:g} dB"] = lambda samples, seed: add_noise(samples, noise_db, seed)
    if telephone:
        found["telephone"] = lambda samples, _: over_telephone(samples)
    return found


def seed_of(recording: Recording) -> int:
    """The same noise for the same recording in every run, wherever it lies."""
    return crc32(recording.path.name.encode())


def add_noise(samples: Audio, snr_db: float, seed: int) -> Audio:
    """White noise `snr_db` below the mean power of `samples`; made quieter where it would clip."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    scale = sqrt(power / 10 ** (snr_db / 10))
    noisy = samples + scale * np.random.default_rng(seed).standard_normal(len(samples))
    peak = max(1.0, float(np.abs(noisy).max()))
    return (noisy / peak).astype(np.float32)


def over_telephone(samples: Audio) -> Audio:
    """As a telephone line carries it, as long as before: 300 to 3400 Hz, 8 kHz, 8-bit mu-law."""
    count = len(samples)
    even = np.pad(samples.astype(np.float64), (0, count % 2))
    spectrum = np.fft.rfft(even)
    hz = np.fft.rfftfreq(len(even), 1 / SAMPLE_RATE)
    low_hz, high_hz = _BAND_HZ
    gain = np.clip(np.minimum(hz - low_hz, high_hz - hz) / _EDGE_HZ + 1, 0, 1)
    # Nothing is left above 3.5 kHz, so every second sample is the signal at 8 kHz.
    line = np.clip(np.fft.irfft(spectrum * gain, len(even))[::2], -1, 1)
    code = np.round(np.sign(line) * np.log1p(_MU * np.abs(line)) / np.log1p(_MU) * _LEVELS)
    line = np.sign(code) * np.expm1(np.abs(code) / _LEVELS * np.log1p(_MU)) / _MU
    back = np.fft.irfft(np.fft.rfft(line) * 2, len(even))
    return np.clip(back[:count], -1, 1).astype(np.float32)
