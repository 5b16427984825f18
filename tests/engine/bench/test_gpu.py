import json
from pathlib import Path

import pytest
import torch

from engine.audio.units import Positions
from engine.bench.gpu import (
    Measured,
    Part,
    measure_partials,
    measure_requests,
    measure_sessions,
    plan,
    run,
)
from engine.bench.time_box import TimeBox
from engine.errors import DeviceError
from tests.support.model_dims import small_dims

CPU = torch.device("cpu")
SIZES = {
    "small": small_dims(n_mels=80, n_audio_state=64, n_text_state=64, n_vocab=2200, n_text_ctx=448)
}
FACTS = {"commit": "abc", "device": "cuda"}


class Clock:
    def __init__(self) -> None:
        self.reading = 0.0

    def __call__(self) -> float:
        return self.reading


class Table:
    """Takes as long as it is told to, and remembers that it was asked."""

    def __init__(self, clock: Clock, seconds: float, error: Exception | None = None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._error = error
        self.admitted: list[bool] = []

    def __call__(self, box: TimeBox) -> Measured:
        for row in ("first", "second"):
            self.admitted.append(box.admits(row))
            self._clock.reading += self._seconds / 2
        if self._error is not None:
            raise self._error
        return [{"row": "first", "s": self._seconds}], {"left_out": box.left_out}


def written(output: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(output.read_text())
    return found


def test_every_table_is_printed_and_all_of_them_are_the_last_line_and_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    parts = [Part(title, 1.0, Table(clock, 2.0)) for title in ("floor, turbo", "attention")]
    output = tmp_path / "bench.json"
    assert run(parts, FACTS, output, seconds=100.0, device=CPU, clock=clock)
    *above, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert told == written(output)
    assert (told["benchmark"], told["commit"]) == ("bench gpu", "abc")
    assert [(it["table"], it["seconds"]) for it in told["tables"]] == [
        ("floor, turbo", 2.0),
        ("attention", 2.0),
    ]
    assert told["left_out"] == told["failed"] == []
    for title in ("bench floor, turbo", "bench attention"):
        assert any(title in line for line in above)


def test_a_table_may_be_printed_in_another_form_than_it_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    part = Part("a", 1.0, Table(clock, 2.0), shown=lambda rows: [{"turned": len(rows)}])
    output = tmp_path / "bench.json"
    assert run([part], FACTS, output, seconds=100.0, device=CPU, clock=clock)
    *above, last = capsys.readouterr().out.splitlines()
    assert any("turned" in line for line in above)
    assert json.loads(last)["tables"][0]["rows"] == [{"row": "first", "s": 2.0}]


def test_a_table_gets_a_share_of_what_those_before_it_left(tmp_path: Path) -> None:
    clock = Clock()
    # 40 s in all, 10 for each; of the 8 that the first one leaves, a third is the second's.
    tables = [Table(clock, seconds) for seconds in (2.0, 12.0, 2.0, 2.0)]
    parts = [Part(str(number), 5.0, table) for number, table in enumerate(tables)]
    assert run(parts, FACTS, tmp_path / "out.json", seconds=40.0, device=CPU, clock=clock)
    assert [table.admitted for table in tables] == [[True, True]] * 4


def test_what_there_is_no_time_for_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    tables = [Table(clock, seconds) for seconds in (25.0, 6.0, 6.0)]
    parts = [Part(name, 1.0, table) for name, table in zip("abc", tables, strict=True)]
    assert run(parts, FACTS, tmp_path / "out.json", seconds=30.0, device=CPU, clock=clock)
    assert [table.admitted for table in tables] == [[True, False], [True, False], []]
    assert written(tmp_path / "out.json")["left_out"] == ["c: no time"]
    assert "left out: c: no time" in capsys.readouterr().out


def test_a_whole_table_begins_only_where_one_as_long_would_fit(tmp_path: Path) -> None:
    clock = Clock()
    tables = [Table(clock, 6.0), Table(clock, 1.0), Table(clock, 1.0)]
    wholes = (True, True, False)
    parts = [
        Part(name, 1.0, table, whole=whole)
        for name, table, whole in zip("abc", tables, wholes, strict=True)
    ]
    assert run(parts, FACTS, tmp_path / "out.json", seconds=10.0, device=CPU, clock=clock)
    assert [len(table.admitted) for table in tables] == [2, 0, 2]
    assert written(tmp_path / "out.json")["left_out"] == ["b: no time"]


def test_a_table_that_fails_costs_itself_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    parts = [
        Part("a", 1.0, Table(clock, 1.0, RuntimeError("no such kernel"))),
        Part("b", 1.0, Table(clock, 1.0)),
    ]
    assert not run(parts, FACTS, tmp_path / "out.json", seconds=30.0, device=CPU, clock=clock)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["failed"] == ["a: RuntimeError: no such kernel"]
    assert [it["table"] for it in told["tables"]] == ["b"]


def test_nothing_is_measured_on_a_device_that_has_failed(tmp_path: Path) -> None:
    clock = Clock()
    after = Table(clock, 1.0)
    parts = [
        Part("a", 1.0, Table(clock, 1.0, DeviceError("illegal address"))),
        Part("b", 1.0, after),
    ]
    output = tmp_path / "out.json"
    assert not run(parts, FACTS, output, seconds=30.0, device=CPU, clock=clock)
    assert after.admitted == []
    assert written(output)["left_out"] == ["b: the device has failed"]


def test_the_first_model_comes_first_and_attention_before_the_second() -> None:
    parts = plan([], ("large-v3-turbo", "large-v3"), device=CPU, dtype=torch.float32)
    tables = (
        "floor",
        "requests",
        "sessions",
        "sessions with trimmed finals",
        "partials",
        "formats",
    )
    assert [part.title for part in parts] == [
        *(f"{table}, large-v3-turbo" for table in tables),
        "attention",
        *(f"{table}, large-v3" for table in tables),
    ]
    assert all(part.share > 0.0 for part in parts)
    assert {part.title for part in parts if part.whole} == {
        "requests, large-v3-turbo",
        "requests, large-v3",
    }
    rows = [{"sessions": 2, "finals": 3}]
    (shown,) = {part.shown for part in parts if part.title.startswith("sessions")}
    assert shown is not None
    assert shown(rows) == [{"sessions": "finals", "2": 3}]


def test_parts_of_a_plan_can_be_measured() -> None:
    """But for those whose numbers at once are a GPU's."""
    sizes = dict.fromkeys(("small", "tiny", "base", "medium"), SIZES["small"])
    for part in plan([], ("small",), device=CPU, dtype=torch.float32, sizes=sizes):
        if part.title.startswith(("floor", "partials", "attention")):
            rows, facts = part.measure(TimeBox(0.0))
            assert rows, part.title
            assert facts["left_out"], part.title


def test_requests_are_measured_whole_or_not_at_all() -> None:
    box = TimeBox(0.0)
    rows, facts = measure_requests("small", (1,), box, device=CPU, dtype=torch.float32, sizes=SIZES)
    assert {row["requests"] for row in rows} == {1}
    assert facts == {"checkpoint": "small", "left_out": []}
    rows, facts = measure_requests("small", (1,), box, device=CPU, dtype=torch.float32, sizes=SIZES)
    assert (rows, facts["left_out"]) == ([], ["requests of small"])


def test_numbers_of_sessions_that_there_is_no_time_for_are_named() -> None:
    rows, facts = measure_sessions(
        "small", (1, 2), 2.0, TimeBox(0.0), device=CPU, dtype=torch.float32, sizes=SIZES
    )
    assert [row["sessions"] for row in rows] == [1]
    assert (facts["seconds"], facts["left_out"]) == (2.0, ["2 sessions"])


def test_settings_of_the_engine_are_told_with_the_figures() -> None:
    rows, facts = measure_sessions(
        "small",
        (1,),
        1.0,
        TimeBox(),
        device=CPU,
        dtype=torch.float32,
        sizes=SIZES,
        partial_context="incremental",
        num_slots=4,
        look_back=Positions(16),
    )
    assert (facts["partial_context"], facts["num_slots"]) == ("incremental", 4)
    assert rows[0]["extend steps / s"] > 0.0


def test_partials_grow_up_to_the_longest_segment_there_is() -> None:
    rows, facts = measure_partials("small", TimeBox(), device=CPU, dtype=torch.float32, sizes=SIZES)
    # Windows of 0.8, 1.2 … 28 s, of two utterances.
    numbers = {2.5: 10, 5.0: 12, 7.5: 12, 10.0: 14, 15.0: 24, 20.0: 26, 25.0: 24, 30.0: 16}
    assert [(row["partials"], row["windows up to, s"], row["number"]) for row in rows] == [
        (context, bound, number)
        for context in ("trimmed", "incremental")
        for bound, number in numbers.items()
    ]
    assert set(facts["growth"]) == {"trimmed", "incremental"}
    assert facts["left_out"] == []
