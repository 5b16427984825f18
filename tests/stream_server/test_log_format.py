import json
import logging
import re
import sys
from typing import Any, get_args

import pytest

from stream_server.log_format import LogFormat, formatter_of

FIELDS = {"session": "x1", "audio_s": 12.5, "language": None, "close_reason": "gone away"}


def line(form: LogFormat, message: str, *args: object, **attributes: Any) -> str:
    record = logging.LogRecord("stream_server.server", logging.INFO, "f.py", 1, message, args, None)
    record.created, record.msecs = 1_700_000_000.125, 125
    for name, value in attributes.items():
        setattr(record, name, value)
    return formatter_of(form).format(record)


def test_people_read_the_message_and_then_the_figures() -> None:
    told = line("text", "session ended", fields=FIELDS)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,125 INFO session ended "
        r'session=x1 audio_s=12\.5 language=- close_reason="gone away"',
        told,
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", '""'),
        ("a=b", '"a=b"'),
        ("a\nb", r'"a\nb"'),
        ('"', r'"\""'),
        ("größer", "größer"),
        (0, "0"),
    ],
)
def test_a_value_that_is_no_single_word_is_quoted(value: object, shown: str) -> None:
    assert line("text", "m", fields={"key": value}).endswith(f" m key={shown}")


def test_machines_get_one_object_per_line() -> None:
    told = line("json", "session %s ended\nbadly", "x1", fields=FIELDS)
    assert "\n" not in told
    assert json.loads(told) == {
        "time": "2023-11-14T22:13:20.125+00:00",
        "level": "info",
        "logger": "stream_server.server",
        "message": "session x1 ended\nbadly",
        **FIELDS,
    }


def test_a_figure_cannot_take_the_place_of_the_message() -> None:
    told = json.loads(line("json", "said", fields={"message": "forged", "more": 1}))
    assert (told["message"], told["more"]) == ("said", 1)


@pytest.mark.parametrize("form", get_args(LogFormat))
def test_an_exception_comes_with_its_traceback(form: LogFormat) -> None:
    try:
        raise RuntimeError("lost the device")
    except RuntimeError:
        told = line(form, "failed", exc_info=sys.exc_info())
    assert "Traceback (most recent call last)" in told
    assert "RuntimeError: lost the device" in told
    if form == "json":
        assert "lost the device" in json.loads(told)["exception"]


def test_what_json_has_no_word_for_is_told_as_text() -> None:
    assert json.loads(line("json", "m", fields={"path": Exception("x")}))["path"] == "x"


@pytest.mark.parametrize("form", get_args(LogFormat))
def test_a_record_without_figures_is_its_message(form: LogFormat) -> None:
    told = line(form, "ready")
    assert told.endswith(" INFO ready") or json.loads(told)["message"] == "ready"
