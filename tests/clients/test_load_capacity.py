from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.load_capacity import RESOLUTION, CapacitySearch, Limits, objections


def level(**changes: Any) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "latency": {
            "final_beyond_endpoint_s": {"p95": 0.5},
            "partial_age_s": {"max": 2.0},
        },
        "outcomes": {"done": 8},
        "missing_finals": 0,
        "retractions": 0,
    }
    return figures | changes


def latency(p95_s: float | None, age_s: float | None) -> dict[str, Any]:
    return {"final_beyond_endpoint_s": {"p95": p95_s}, "partial_age_s": {"max": age_s}}


def test_a_load_at_its_limits_holds() -> None:
    assert objections(level(), Limits()) == []
    assert objections(level(latency=latency(0.1, None)), Limits()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"latency": latency(0.512, 1.0)}, "p95 of finals 512 ms"),
        ({"latency": latency(0.1, 2.06)}, "a partial 2.1 s old"),
        ({"latency": latency(None, 1.0)}, "no final was timed"),
        ({"outcomes": {"done": 5, "refused": 3}}, "3 of the sessions refused"),
        ({"outcomes": {"done": 7, "failed": 1}}, "1 of the sessions failed"),
        ({"missing_finals": 2}, "missing finals: 2"),
        ({"retractions": 1}, "retractions: 1"),
    ],
)
def test_a_load_that_does_not_hold_says_why(changes: dict[str, Any], sentence: str) -> None:
    assert objections(level(**changes), Limits()) == [sentence]


def searched(first: int, most: int, capacity: int) -> tuple[CapacitySearch, list[int]]:
    search, tried = CapacitySearch(first, most), list[int]()
    while (sessions := search.next) is not None:
        assert sessions not in tried
        assert 1 <= sessions <= most
        tried.append(sessions)
        search.tried(sessions, sessions <= capacity)
    return search, tried


@given(st.integers(1, 100), st.integers(1, 5000), st.integers(0, 6000))
def test_the_search_finds_the_most_that_holds(first: int, most: int, capacity: int) -> None:
    search, tried = searched(first, most, capacity)
    assert search.capacity <= capacity
    if capacity >= most:
        assert search.capacity == most
    else:
        smallest_beyond = min(sessions for sessions in tried if sessions > capacity)
        assert smallest_beyond - search.capacity <= max(1, RESOLUTION * search.capacity)
    assert len(tried) <= 14 + 13


def test_loads_double_and_then_halve_what_is_between() -> None:
    search, tried = searched(8, 4096, 45)
    assert tried == [8, 16, 32, 64, 48, 40, 44, 46]
    assert search.capacity == 44
