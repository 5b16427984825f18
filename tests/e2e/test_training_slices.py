"""The one command for a GPU machine without network, in miniature and on a processor."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from contextlib import suppress
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from engine.model.checkpoint import load_checkpoint
from tests.support.synthesisers import needs_espeak
from tests.support.tone_speech import write_tone_shard
from training.package import PackPlan, pack
from training.text.collection import HELD_OUT_FILE, SENTENCES_FILE
from training.text.templates import Lexicon, template_sentences
from training.vocabulary import train_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
MANIFEST = "path\tseconds\ttranscript\tlanguage\tspeaker\tsource\tlicence\n"
TINY = ("--device", "cpu", "--budget", "12", "--log-every", "2", "--state", "48", "--heads", "2")
WEIGHT = ("--human-weight", "3")


def test_two_slices_make_one_run_and_leave_a_checkpoint_each(tmp_path: Path) -> None:
    needs_espeak()
    work, people = tmp_path / "made", tmp_path / "people"
    texts = [text for _, text in islice(template_sentences(Random(1), Lexicon()), 500)]
    (work / "text").mkdir(parents=True)
    for name, some in ((SENTENCES_FILE, texts), (HELD_OUT_FILE, texts[:2])):
        (work / "text" / name).write_text("".join(f"talk\t{text}\n" for text in some))
    train_tokenizer(texts, work / "tokenizer", 300)
    write_tone_shard(people / "ann", texts[:1], "flac")
    (people / "manifest.tsv").write_text(f"{MANIFEST}ann.flac\t2\tHELLO\ten\tann\thome\tCC0\n")
    pack(
        PackPlan(work, (people / "manifest.tsv",), 16_000, "3.12", ()),
        tmp_path / "pack",
        processes=1,
    )

    place = {"WORK": str(tmp_path / "there"), "PROCESSES": "1", "ROUNDS": "1"}
    out = tmp_path / "out"
    try:
        for number in (1, 2):
            subprocess.run(
                ["training/slice.sh", str(tmp_path / "pack"), "40", "15", str(out), *TINY, *WEIGHT],
                cwd=ROOT,
                env=os.environ | place | {"PYTHON": sys.executable},
                check=True,
            )
            whole = tmp_path / "export.tar.gz"
            whole.write_bytes(b"".join(p.read_bytes() for p in sorted(out.glob("export.*"))))
            with tarfile.open(whole) as archive:
                archive.extractall(tmp_path / f"export-{number}", filter="data")
            export = tmp_path / f"export-{number}"
            assert load_checkpoint(export).traits.trimmed_context
            assert "home (0.0 h, CC0, 3-fold)" in (export / "README.md").read_text()
            lines = list(map(json.loads, (out / "log.jsonl").read_text().splitlines()))
            steps = [line["step"] for line in lines]
            seconds = [line["seconds"] for line in lines]
            # A run that had begun again would count from one.
            assert steps == sorted(set(steps))
            assert 15 * (number - 1) < seconds[-1] < 15 * number + 10
    finally:
        with suppress(ProcessLookupError):  # it may have spoken everything
            os.killpg(int((tmp_path / "there" / "speech.pid").read_text()), signal.SIGTERM)
