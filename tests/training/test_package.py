import logging
from dataclasses import replace
from pathlib import Path

import pytest

from engine.audio.file import read_audio
from tests.support.recipe import TEXTS, make_tokenizer
from tests.support.tone_speech import write_tone_shard
from training.errors import RecipeError
from training.human import read_manifest
from training.package import PackPlan, pack

MANIFEST = "path\tseconds\ttranscript\tlanguage\tspeaker\tsource\tlicence\n"


@pytest.fixture
def plan(tmp_path: Path) -> PackPlan:
    work = tmp_path / "work"
    (work / "text").mkdir(parents=True)
    for name in ("sentences.tsv", "held-out.tsv"):
        (work / "text" / name).write_text("".join(f"talk\t{text}\n" for text in TEXTS))
    make_tokenizer(work / "tokenizer")
    people = tmp_path / "people"
    write_tone_shard(people / "ann", TEXTS[:1], "flac")
    rows = (f"ann.flac\t2.0\t{said}\ten\tann\thome\tCC0\n" for said in ("7 of 9", "HELLO THERE"))
    (people / "manifest.tsv").write_text(MANIFEST + "".join(rows))
    return PackPlan(work, (people / "manifest.tsv",), 16_000, "3.12", ())


def test_a_packed_folder_holds_what_a_slice_needs(plan: PackPlan, tmp_path: Path) -> None:
    target = tmp_path / "packed"
    size = pack(plan, target, processes=1)
    assert size == sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    for part in ("text/sentences.tsv", "text/held-out.tsv", "tokenizer/tokenizer.json"):
        assert (target / "work" / part).read_bytes() == (plan.work / part).read_bytes()
    manifest = read_manifest(target / "work" / "human-00" / "manifest.tsv")
    (recording,) = manifest.recordings
    assert recording.text == "hello there"
    assert manifest.origins == {("home", "CC0"): pytest.approx(2 / 3600)}
    before, after = read_audio(tmp_path / "people" / "ann.flac"), read_audio(recording.path)
    assert len(after) == pytest.approx(len(before), abs=800)
    assert recording.path.stat().st_size < (tmp_path / "people" / "ann.flac").stat().st_size


def test_what_was_packed_before_is_gone(plan: PackPlan, tmp_path: Path) -> None:
    target = tmp_path / "packed"
    (target / "work" / "old").mkdir(parents=True)
    pack(plan, target, processes=1)
    assert not (target / "work" / "old").exists()


def test_what_is_no_pack_stays(plan: PackPlan) -> None:
    outer = plan.work.parent / "outer"
    outer.mkdir()
    inner = replace(plan, work=plan.work.rename(outer / "work"))
    for target in (inner.work, outer):
        with pytest.raises(RecipeError, match="expected nothing, or what was packed before"):
            pack(inner, target, processes=1)
    assert (inner.work / "text" / "sentences.tsv").is_file()


def test_what_was_not_made_yet_is_asked_for(plan: PackPlan, tmp_path: Path) -> None:
    (plan.work / "text" / "sentences.tsv").unlink()
    (tmp_path / "packed" / "work").mkdir(parents=True)
    with pytest.raises(RecipeError, match="run text first"):
        pack(plan, tmp_path / "packed", processes=1)
    assert (tmp_path / "packed" / "work").is_dir()


def test_without_flite_its_voices_are_said_to_be_missing(
    plan: PackPlan,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.package.LIBRARIES", ("libnowhere.so.1",))
    caplog.set_level(logging.WARNING)
    pack(plan, tmp_path / "packed", processes=1)
    assert "libnowhere.so.1 is not installed" in caplog.text
    assert list((tmp_path / "packed" / "lib").iterdir()) == []


def test_wheels_that_cannot_be_had_are_named(plan: PackPlan, tmp_path: Path) -> None:
    nowhere = PackPlan(plan.work, (), 16_000, "3.12", ("./no such wheel",))
    with pytest.raises(RecipeError, match=r"expected wheels for Python 3\.12"):
        pack(nowhere, tmp_path / "packed", processes=1)
