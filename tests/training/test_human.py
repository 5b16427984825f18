from pathlib import Path

import pytest

from training.errors import RecipeError
from training.human import Manifest, as_written, hours_heard, read_manifest

HEADER = "path\tseconds\ttranscript\tlanguage\tspeaker\tsource\tlicence\n"


def test_capitals_become_small_letters_that_are_not_certain() -> None:
    assert as_written("AND I SAID I'M LATE") == ("and I said I'm late", False)
    assert as_written("and i said") == ("and I said", False)


def test_text_with_case_and_a_mark_is_certain_and_kept() -> None:
    assert as_written("Ask Stella, please.") == ("Ask Stella, please.", True)
    assert as_written("Ask  Stella") == ("Ask Stella", False)


def test_what_cannot_be_learnt_from_is_left_out_and_the_rest_is_counted_by_licence(
    tmp_path: Path,
) -> None:
    rows = [
        "a.flac\t1800\tHELLO\ten\ts1\tbook\tCC0\n",  # longer than a window
        "b.flac\t9.0\tHELLO THERE\ten\ts1\tbook\tCC0\n",
        'c.flac\t9.0\tI have 3 "apples"\ten\ts2\tbook\tCC0\n',
        "d.flac\t9.0\tBONJOUR\tfr\ts3\tbook\tCC0\n",
        "e.flac\t18.0\tGood morning.\ten\ts4\tradio\tCC BY 4.0\n",
    ]
    path = tmp_path / "manifest.tsv"
    path.write_text(HEADER + "".join(rows))
    manifest = read_manifest(path)
    assert [r.text for r in manifest.recordings] == ["hello there", "Good morning."]
    assert [r.certain for r in manifest.recordings] == [False, True]
    assert manifest.recordings[0].path == tmp_path / "b.flac"
    assert manifest.num_left_out == 3
    assert manifest.origins == {
        ("book", "CC0"): pytest.approx(9 / 3600),
        ("radio", "CC BY 4.0"): pytest.approx(18 / 3600),
    }


def test_a_manifest_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.tsv"
    with pytest.raises(RecipeError, match="found no file"):
        read_manifest(path)
    path.write_text("path\tseconds\n")
    with pytest.raises(RecipeError, match="licence"):
        read_manifest(path)


def test_hours_of_manifests_of_one_source_add_up() -> None:
    first = Manifest((), {("a", "CC BY 4.0"): 1.5, ("b", "CC0"): 0.5}, 0)
    second = Manifest((), {("a", "CC BY 4.0"): 2.0}, 3)
    third = Manifest((), {("a", "CC BY 4.0"): 0.25}, 0)
    assert hours_heard([(first, 5), (second, 5), (third, 2)]) == {
        ("a", "CC BY 4.0", 5): 3.5,
        ("b", "CC0", 5): 0.5,
        ("a", "CC BY 4.0", 2): 0.25,
    }
