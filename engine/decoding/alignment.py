"""Word times from cross-attention: dynamic time warping of token rows over positions.

openai/whisper `timing.py`: the weights of the alignment heads are normalised over tokens,
smoothed by a median filter over positions, averaged, and the cheapest monotone path through
them gives each token its first position.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MEDIAN_WIDTH: Final = 7  # openai/whisper's medfilt_width


def token_boundaries(weights: NDArray[np.float32], num_forced: int) -> NDArray[np.int64]:
    """First position of each text token, and of `eot` behind them.

    `weights` [heads, tokens, positions] are attention probabilities of a pass over the forced
    prefix (`num_forced` tokens), the text and `eot`. A token is looked for by the row before
    it, which predicts it. Returns [text tokens + 1], non-decreasing.
    """
    mean = weights.mean(axis=1, keepdims=True)
    deviation = weights.std(axis=1, keepdims=True)
    normalised = (weights - mean) / np.maximum(deviation, 1e-12)
    return warp(-_median(normalised).mean(axis=0)[num_forced - 1 : -1])


def warp(cost: NDArray[np.floating]) -> NDArray[np.int64]:
    """Cheapest monotone path through `cost` [rows, columns]: the first column of each row.

    Worked along anti-diagonals, whose cells do not depend on each other.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    came_from = np.zeros((rows + 1, columns + 1), dtype=np.int8)
    for diagonal in range(2, rows + columns + 1):
        row = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        column = diagonal - row
        options = np.stack(
            (total[row - 1, column - 1], total[row - 1, column], total[row, column - 1])
        )
        choice = np.argmin(options, axis=0)
        total[row, column] = cost[row - 1, column - 1] + options[choice, np.arange(len(row))]
        came_from[row, column] = choice
    first = np.zeros(rows, dtype=np.int64)
    row_at, column_at = rows, columns
    while row_at > 0 and column_at > 0:
        first[row_at - 1] = column_at - 1
        move = came_from[row_at, column_at]
        row_at -= move != 2
        column_at -= move != 1
    return first


def _median(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Median over the last axis, reflected at its ends; short rows are left as they are."""
    half = MEDIAN_WIDTH // 2
    if values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, MEDIAN_WIDTH, axis=-1)
    return np.asarray(np.median(windows, axis=-1))
