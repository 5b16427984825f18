import re
from pathlib import Path
from typing import get_args

import pytest

from stream_server import errors, protocol

ERRORS = errors.SessionError.__subclasses__()
DOCUMENT = Path(__file__).parents[2] / "docs/protocol.md"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_becomes_its_message(error: type[errors.SessionError]) -> None:
    message = error("what went wrong").to_message()
    assert message == protocol.ErrorMessage(code=error.code, message="what went wrong", fatal=True)


def test_close_codes_are_those_of_the_document() -> None:
    stated: dict[str, set[int]] = {}
    for names, closes in re.findall(
        r"^\| ((?:`\w+`,? ?)+) \| (1\d{3}(?:, 1\d{3})*) \|", DOCUMENT.read_text(), re.MULTILINE
    ):
        for name in re.findall(r"\w+", names):
            stated[name] = {int(code) for code in closes.split(",")}
    assert stated.keys() == set(get_args(protocol.ErrorCode))
    for error in ERRORS:
        assert error("").close_code in stated[error.code]


def test_every_code_has_its_error_but_that_of_resuming() -> None:
    assert {error.code for error in ERRORS} | {"unknown_session"} == set(
        get_args(protocol.ErrorCode)
    )


def test_a_bad_message_closes_as_undecodable_where_its_bytes_are() -> None:
    assert errors.BadMessageError("x").close_code == 1008
    assert errors.BadMessageError("x", protocol.CLOSE_UNDECODABLE).close_code == 1007
