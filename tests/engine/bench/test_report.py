import json
from typing import Any

import pytest
import torch

from engine.bench.report import dtype_name, environment, report

FACTS = {"commit": "abc", "model": "embedded"}
ROWS: list[dict[str, Any]] = [
    {"engine": "starling", "seconds": 0.123456, "requests": None},
    {"engine": "größer", "seconds": 1234.5, "requests": 16},
]


def test_the_last_line_is_everything_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    report("bench throughput", ROWS, FACTS)
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == {"benchmark": "bench throughput", **FACTS, "rows": ROWS}


def test_above_it_stands_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    report("bench throughput", ROWS, FACTS)
    table = "\n".join(capsys.readouterr().out.splitlines()[:-1])
    for shown in ("bench throughput", "engine", "seconds", "0.123", "1.23e+03", "größer", "16"):
        assert shown in table
    assert "None" not in table  # where there is no figure


def test_a_table_may_show_the_rows_in_another_form(capsys: pytest.CaptureFixture[str]) -> None:
    report("bench sessions", ROWS, FACTS, shown=[{"sessions": "tokens / s", "200": 2.5}])
    *table, last = capsys.readouterr().out.splitlines()
    assert json.loads(last)["rows"] == ROWS
    assert "tokens / s" in "\n".join(table)
    assert "starling" not in "\n".join(table)


def test_a_number_format_is_named_as_in_settings() -> None:
    assert (dtype_name(torch.float16), dtype_name(torch.bfloat16)) == ("float16", "bfloat16")


def test_a_figure_is_told_with_what_it_must_be_read_with() -> None:
    told = environment("embedded", "cpu", "bfloat16")
    asked_for = {"model": "embedded", "device": "cpu", "dtype": "bfloat16", "gpu": None}
    assert told == {**told, **asked_for, "torch": torch.__version__}
    assert told["cores"] >= 1
    assert set(told) >= {"commit", "cpu", "python"}
    assert json.loads(json.dumps(told)) == told
