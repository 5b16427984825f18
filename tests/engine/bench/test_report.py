import json
from typing import Any

import pytest
import torch

from engine.bench.report import environment, report

FACTS = {"commit": "abc", "model": "embedded"}
ROWS: list[dict[str, Any]] = [
    {"engine": "starling", "seconds": 0.123456, "requests": 1},
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


def test_a_figure_is_told_with_what_it_must_be_read_with() -> None:
    told = environment("embedded", "cpu", "bfloat16")
    asked_for = {"model": "embedded", "device": "cpu", "dtype": "bfloat16", "gpu": None}
    assert told == {**told, **asked_for, "torch": torch.__version__}
    assert told["cores"] >= 1
    assert set(told) >= {"commit", "cpu", "python"}
    assert json.loads(json.dumps(told)) == told
