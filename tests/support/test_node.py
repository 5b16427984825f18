"""Node does not go missing in silence, and what a program answers arrives as it was."""

import pytest

from tests.support.node import REQUIRE_VARIABLE, node, run_module


def test_without_node_a_test_is_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(REQUIRE_VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="not on PATH"):
        node()


def test_where_node_is_required_its_absence_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv(REQUIRE_VARIABLE, "1")
    with pytest.raises(pytest.fail.Exception, match="not on PATH"):
        node()


def test_values_reach_a_program_and_come_back() -> None:
    given = {"text": "Grüße 😀", "numbers": [0.1, -1, 2**53], "nothing": None}
    assert run_module("answer([given]);", given) == [given]


def test_a_program_that_fails_fails_its_test_with_what_it_said() -> None:
    node()
    with pytest.raises(AssertionError, match="no such luck"):
        run_module('throw new Error("no such luck");')
