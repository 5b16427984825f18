import logging
from pathlib import Path

import pytest

from training.errors import RecipeError
from training.text.collection import (
    HELD_OUT_FILE,
    SENTENCES_FILE,
    collect_text,
    read_sentences,
)


def collect(directory: Path, count: int = 300) -> int:
    return collect_text(directory, count=count, held_out=20, seed=1, root=directory / "nowhere")


def test_sentences_are_distinct_and_what_is_held_out_is_not_among_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert collect(tmp_path) == 300
    sentences = [s.text.lower() for s in read_sentences(tmp_path / SENTENCES_FILE)]
    held_out = read_sentences(tmp_path / HELD_OUT_FILE)
    assert len(set(sentences)) == 300
    assert len(held_out) == 20
    assert not {s.text.lower() for s in held_out} & set(sentences)
    assert all(len(s.text.split()) >= 3 and s.kind != "words" for s in held_out)
    assert "wordnet-base is not installed" in caplog.text


def test_what_is_there_is_not_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    collect(tmp_path)
    before = (tmp_path / SENTENCES_FILE).stat().st_mtime_ns
    assert collect(tmp_path) == 300
    assert (tmp_path / SENTENCES_FILE).stat().st_mtime_ns == before
    assert "already" in caplog.text
    assert collect(tmp_path, count=310) == 310


def test_the_same_seed_gives_the_same_sentences(tmp_path: Path) -> None:
    for name in ("one", "two"):
        collect(tmp_path / name)
    one, two = ((tmp_path / name / SENTENCES_FILE).read_text() for name in ("one", "two"))
    assert one == two


def test_sentences_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="run `text` first"):
        read_sentences(tmp_path / SENTENCES_FILE)


def test_what_is_measured_on_stays_out(tmp_path: Path) -> None:
    books = tmp_path / "books"
    books.mkdir()
    kept = "The old house stood at the end of the road."
    measured = "Nobody had seen the old man since the end of May."
    (books / "one.txt").write_text(f"{kept} {measured}\n" * 3)
    manifest = tmp_path / "manifest.tsv"
    columns = "path\tseconds\ttranscript\tlanguage\tspeaker\tsource\tlicence\n"
    manifest.write_text(f"{columns}a.flac\t3\tSEEN THE OLD MAN SINCE THE\ten\tann\thome\tCC0\n")
    collect_text(
        tmp_path,
        count=50,
        held_out=0,
        seed=1,
        root=tmp_path / "nowhere",
        prose=[books],
        apart=[manifest],
    )
    texts = {s.text for s in read_sentences(tmp_path / SENTENCES_FILE)}
    assert kept in texts
    assert measured not in texts
