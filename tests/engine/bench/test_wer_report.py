import json
from pathlib import Path

import pytest

from engine.bench.wer import Comparison, Found
from engine.bench.wer_hearing import FINALS, WHOLE
from engine.bench.wer_report import show, turned, write_details
from engine.bench.wer_text import Errors, TextErrors

WRONG = TextErrors(Errors(2, substitutions=1), Errors(9, substitutions=3))
COMPARISON = Comparison(FINALS, "telephone", "books", "/sets/a.flac", "a [b]", "a [/c]", WRONG)
INVENTED = [
    {"way": WHOLE, "sound": "hum", "minutes": 10.0, "speech s": None, "words": 3, "heard": "[/you]"}
]
ROWS = [
    {"way": way, "audio": "as recorded", "group": "books", "number": 1, "words": 2}
    | {"WER %": rate, "flicker %": flicker}
    for way, rate, flicker in ((WHOLE, 50.0, None), (FINALS, 100.0, 12.5))
]


class FixedFound(Found):
    """Rows that were not counted."""

    def rows(self) -> list[dict[str, object]]:
        return ROWS

    def totals(self) -> list[dict[str, object]]:
        return ROWS


def test_a_group_is_a_row_with_the_rates_of_all_ways() -> None:
    assert turned(ROWS) == [
        {
            "audio": "as recorded",
            "group": "books",
            "number": 1,
            "words": 2,
            "WER % offline whole": 50.0,
            "WER % live finals": 100.0,
            "flicker %": 12.5,
        }
    ]


def test_the_last_line_holds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    found = FixedFound([COMPARISON])
    found.left_out.update(["pt"])
    show(found, INVENTED, {"model": "embedded"}, num_worst=5)
    *tables, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert (told["benchmark"], told["model"]) == ("bench wer", "embedded")
    assert told["rows"] == ROWS
    assert told["invented"] == INVENTED
    assert told["left_out"] == {"pt": 1}
    assert told["worst"] == [
        {
            "way": FINALS,
            "audio": "telephone",
            "path": "/sets/a.flac",
            "WER %": 50.0,
            "said": "a [b]",
            "heard": "a [/c]",
        }
    ]
    printed = "\n".join(tables)
    for part in ("worst: live, finals", "all recordings", "invented words", "bench wer", "[/c]"):
        assert part in printed


def test_a_source_is_shown_by_its_name_and_copies_where_there_are_some(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Renamed(FixedFound):
        def rows(self) -> list[dict[str, object]]:
            degraded = [row | {"audio": "muffled"} for row in ROWS]
            return [row | {"group": "owner/name@c0ffee"} for row in [*ROWS, *degraded]]

    show(Renamed(), [], {}, num_worst=0)
    *tables, last = capsys.readouterr().out.splitlines()
    assert "name" in "\n".join(tables)
    assert "owner" not in "\n".join(tables)
    assert "muffled" in "\n".join(tables)
    assert "owner/name@c0ffee" in last
    show(FixedFound(), [], {}, num_worst=0)
    printed = capsys.readouterr().out
    assert "muffled" not in printed
    assert "all recordings, as recorded" in printed


def test_invented_words_may_be_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    show(Found(), INVENTED, {}, num_worst=5)
    *tables, last = capsys.readouterr().out.splitlines()
    assert json.loads(last)["rows"] == INVENTED
    assert "hum" in "\n".join(tables)
    assert "[/you]" in "\n".join(tables)
    assert "None" not in "\n".join(tables)


def test_details_are_a_line_for_each_comparison(tmp_path: Path) -> None:
    path = tmp_path / "details.jsonl"
    write_details([COMPARISON, COMPARISON], path)
    first, second = path.read_text().splitlines()
    assert first == second
    told = json.loads(first)
    assert (told["said"], told["heard"], told["path"]) == ("a [b]", "a [/c]", "/sets/a.flac")
    assert told["errors"]["words"]["substitutions"] == 1
