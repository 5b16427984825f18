"""The one command for a GPU machine without network, in miniature and on a processor."""

import os
import subprocess
import sys
import tarfile
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from engine.model.checkpoint import load_checkpoint
from tests.support.tone_speech import write_tone_shard
from training.package import PackPlan, pack
from training.text.collection import HELD_OUT_FILE, SENTENCES_FILE
from training.text.templates import Lexicon, template_sentences
from training.vocabulary import train_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
MANIFEST = "path\tseconds\ttranscript\tlanguage\tspeaker\tsource\tlicence\n"
TINY = ("--device", "cpu", "--budget", "12", "--log-every", "2", "--state", "48", "--heads", "2")


def test_two_slices_make_one_run_and_leave_a_checkpoint_each(tmp_path: Path) -> None:
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
    steps = []
    for number in range(2):
        out = tmp_path / f"out-{number}"
        out.mkdir()
        subprocess.run(
            ["training/slice.sh", str(tmp_path / "pack"), "40", "15", str(out), *TINY],
            cwd=ROOT,
            env=os.environ | place | {"PYTHON": sys.executable},
            check=True,
        )
        whole = out / "export.tar.gz"
        whole.write_bytes(b"".join(p.read_bytes() for p in sorted(out.glob("export.tar.gz.*"))))
        with tarfile.open(whole) as archive:
            archive.extractall(out / "export", filter="data")
        assert load_checkpoint(out / "export").traits.trimmed_context
        assert "home (0.0 h, CC0)" in (out / "export" / "README.md").read_text()
        steps.append(len((out / "log.jsonl").read_text().splitlines()))
    assert steps[1] > steps[0] > 0
