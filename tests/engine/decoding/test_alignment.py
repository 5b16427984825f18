import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.decoding.alignment import MEDIAN_WIDTH, token_boundaries, warp


def cheapest_total(cost: NDArray[np.float64]) -> float:
    """The textbook recurrence, cell by cell."""
    rows, columns = cost.shape
    total = np.full((rows, columns), np.inf)
    for row in range(rows):
        for column in range(columns):
            before = [
                total[r, c]
                for r, c in ((row - 1, column - 1), (row - 1, column), (row, column - 1))
                if r >= 0 and c >= 0
            ]
            total[row, column] = cost[row, column] + (min(before) if before else 0.0)
    return float(total[-1, -1])


def total_of(cost: NDArray[np.float64], first: NDArray[np.int64]) -> float:
    """The cheapest path whose rows begin at the columns `first`.

    A row reaches to the column before the next row's first, or shares it where the path went
    straight down.
    """
    last = [*first[1:], cost.shape[1] - 1]
    total = 0.0
    for row, (begin, end) in enumerate(zip(first, last, strict=True)):
        whole = float(cost[row, begin : end + 1].sum())
        if row + 1 < len(first) and end > begin:
            whole -= max(0.0, float(cost[row, end]))
        total += whole
    return total


@given(st.integers(1, 12), st.integers(1, 16), st.integers(0, 2**32 - 1))
def test_the_path_is_as_cheap_as_the_textbook_recurrence_finds(
    rows: int, columns: int, seed: int
) -> None:
    cost = np.random.default_rng(seed).random((rows, columns))
    first = warp(cost)
    assert first[0] == 0
    assert np.all(np.diff(first) >= 0)
    assert first[-1] < columns
    assert total_of(cost, first) == pytest.approx(cheapest_total(cost))


@given(st.integers(1, 12), st.integers(1, 16), st.integers(0, 2**32 - 1))
def test_the_path_is_monotone_for_costs_of_any_sign(rows: int, columns: int, seed: int) -> None:
    first = warp(np.random.default_rng(seed).standard_normal((rows, columns)))
    assert first[0] == 0
    assert np.all(np.diff(first) >= 0)


def test_a_planted_path_is_found() -> None:
    begins = [0, 3, 4, 9]
    cost = np.ones((4, 12))
    for row, (begin, end) in enumerate(zip(begins, [*begins[1:], 12], strict=True)):
        cost[row, begin:end] = 0.0
    assert warp(cost).tolist() == begins


@given(
    st.lists(st.integers(5, 30), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
def test_token_boundaries_find_planted_diagonals(
    lengths: list[int], num_forced: int, num_heads: int, seed: int
) -> None:
    begins = [0, *np.cumsum(lengths).tolist()]
    num_positions = begins[-1] + 10  # `eot` attends to the silence behind the words
    rows = num_forced + len(lengths) + 1
    weights = np.random.default_rng(seed).random((num_heads, rows, num_positions)) * 0.02
    for index, (begin, end) in enumerate(zip(begins, [*begins[1:], num_positions], strict=True)):
        weights[:, num_forced - 1 + index, begin:end] += 1.0  # the row before predicts the token
    weights /= weights.sum(axis=-1, keepdims=True)
    found = token_boundaries(weights.astype(np.float32), num_forced)
    assert found.shape == (len(lengths) + 1,)
    assert np.abs(found - begins).max() <= MEDIAN_WIDTH // 2


def test_one_stray_peak_does_not_move_a_boundary() -> None:
    weights = np.full((1, 4, 40), 0.001, dtype=np.float32)
    weights[0, 0, :20] = weights[0, 1, 20:30] = weights[0, 2, 30:] = 0.1
    stray = weights.copy()
    stray[0, 0, 35] = 0.1
    np.testing.assert_array_equal(token_boundaries(stray, 1), token_boundaries(weights, 1))
    assert token_boundaries(weights, 1).tolist() == [0, 20, 30]


def test_a_window_shorter_than_the_filter_is_aligned_unfiltered() -> None:
    weights = np.full((1, 3, 3), 0.1, dtype=np.float32)
    weights[0, 0, 0] = weights[0, 1, 1] = 0.9
    assert token_boundaries(weights, 1).tolist() == [0, 1]
