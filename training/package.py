"""The `pack` command: what a GPU machine without network needs, gathered in one folder.

Sentences, tokenizer, flite's libraries, wheels for its Python, and human speech as Opus. There,
`training/slice.sh` synthesises on all cores and trains at the same time.
"""

import csv
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Final

from engine.audio.file import read_audio
from training.corpus import as_integers
from training.errors import RecipeError
from training.human import COLUMNS, is_usable, rows_of
from training.progress import progress_bar
from training.speech.flite import LIBRARIES
from training.speech.shards import encode
from training.text.collection import HELD_OUT_FILE, SENTENCES_FILE
from training.vocabulary import TOKENIZER_FILE

logger = logging.getLogger(__name__)

WHEELS: Final = "wheels"
LIBRARY: Final = "lib"
WORK: Final = "work"
_MANIFEST: Final = "manifest.tsv"
# flite's library is linked to it and does not load without, though nothing is played.
_SOUND_LIBRARY: Final = "libasound.so.2"
# What the recipe imports beyond torch, numpy, safetensors and tokenizers, and espeak-ng.
NEEDED: Final = ("av", "soxr", "rich", "markdown-it-py", "mdurl", "pygments", "espeakng-loader")
# The machine's C library is taken to be no older than Debian 11's.
_PLATFORMS: Final = (
    *("manylinux_2_31_x86_64", "manylinux_2_28_x86_64", "manylinux_2_27_x86_64"),
    *("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64"),
    "manylinux1_x86_64",
)


@dataclass(frozen=True, slots=True)
class PackPlan:
    """Where what was made lies, which people are heard, and the Python that will run it.

    `bit_rate` is that of human speech, in bit/s; `wheels` are what that Python lacks.
    """

    work: Path
    manifests: tuple[Path, ...]
    bit_rate: int
    python: str
    wheels: tuple[str, ...]


def pack(plan: PackPlan, target: Path, *, processes: int) -> int:
    """Gather everything in `target`, which is made anew; returns its size in bytes.

    Raises RecipeError where a part is missing, or where something else lies at `target`.
    """
    text, tokenizer = Path("text"), Path("tokenizer")
    parts = (text / SENTENCES_FILE, text / HELD_OUT_FILE, tokenizer / TOKENIZER_FILE)
    for part in parts:
        if not (plan.work / part).is_file():
            raise RecipeError(
                f"{plan.work / part}: expected it to be made, run {part.parent} first"
            )
    if target.exists():
        holds_work = plan.work.resolve().is_relative_to(target.resolve())
        if holds_work or {path.name for path in target.iterdir()} - {WHEELS, LIBRARY, WORK}:
            raise RecipeError(f"{target}: expected nothing, or what was packed before")
        shutil.rmtree(target)
    for part in parts:
        (target / WORK / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(plan.work / part, target / WORK / part)
    _copy_libraries(target / LIBRARY)
    _download_wheels(target / WHEELS, plan)
    for number, manifest in enumerate(plan.manifests):
        directory = target / WORK / f"human-{number:02d}"
        _pack_recordings(manifest, directory, plan.bit_rate, processes)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def _copy_libraries(directory: Path) -> None:
    directory.mkdir(parents=True)
    command = [shutil.which("ldconfig") or "/sbin/ldconfig", "-p"]  # not on everybody's PATH
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    places = (line.strip().rpartition(" => ") for line in listed.splitlines())
    known = {described.split()[0]: place for described, arrow, place in places if arrow}
    needed = (*LIBRARIES, _SOUND_LIBRARY)
    if lacking := [name for name in needed if name not in known]:
        logger.warning("%s is not installed: flite's voices will be missing", ", ".join(lacking))
        return
    for name in needed:
        shutil.copy(known[name], directory / name)


def _download_wheels(directory: Path, plan: PackPlan) -> None:
    directory.mkdir()
    if not plan.wheels:
        return
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", plan.python]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    done = subprocess.run(
        [*command, "--dest", os.fspath(directory), *plan.wheels],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RecipeError(f"expected wheels for Python {plan.python}: {done.stderr.strip()}")


def _pack_recordings(manifest: Path, directory: Path, bit_rate: int, processes: int) -> None:
    """The usable recordings of `manifest` as Opus, and a manifest of them."""
    rows = [row for row in rows_of(manifest) if is_usable(row)]
    names = [f"{number:06d}.opus" for number in range(len(rows))]
    directory.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, mp_context=context) as pool,
        progress_bar(str(manifest), len(rows)) as bar,
    ):
        recordings = [manifest.parent / row["path"] for row in rows]
        targets = [directory / name for name in names]
        for _ in pool.map(_encode_one, recordings, targets, repeat(bit_rate), chunksize=16):
            bar.advance()
    with (directory / _MANIFEST).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, COLUMNS, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE
        )
        writer.writeheader()
        for row, name in zip(rows, names, strict=True):
            writer.writerow({column: row[column] for column in COLUMNS} | {"path": name})


def _encode_one(recording: Path, target: Path, bit_rate: int) -> None:
    encode(target, as_integers(read_audio(recording)), "opus", bit_rate)
