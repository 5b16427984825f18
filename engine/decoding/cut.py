"""Decides where an over-long utterance becomes two segments.

The place lies between two words of the hypothesis, so what is before it stands in the closed
segment once and what is behind it is decoded afresh: no word is lost or doubled. Among the
word boundaries of the last seconds the deepest pause wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import HOP_SAMPLES, SAMPLE_RATE, Samples, samples_from_ms

_SEARCH: Final = Samples(5 * SAMPLE_RATE)  # far enough for a breath, near enough to keep a window
_EDGE: Final = samples_from_ms(300)  # a word this close to the end may not be whole
_SLACK: Final = samples_from_ms(80)  # alignment is that uncertain on either side
_SMOOTH_HOPS: Final = 5  # 50 ms: a pause between words, not the closure of a stop


@dataclass(frozen=True, slots=True)
class TimedWord:
    """Where one word of the hypothesis lies, in samples of the window."""

    start: Samples
    end: Samples


@dataclass(frozen=True, slots=True)
class Cut:
    """The first `num_words` words and the first `at` samples of the window are closed."""

    num_words: int
    at: Samples


def choose_cut(samples: NDArray[np.float32], words: Sequence[TimedWord], *, num_stable: int) -> Cut:
    """Choose the cut of a window `samples` [n] whose hypothesis has `words`.

    The first `num_stable` words were promised to this segment and stay in it. Without words
    the window is cut at its deepest pause.
    """
    end = len(samples)
    loudness = _loudness(samples)
    recent = max(end - _SEARCH, end // 2)  # a short window must not be cut into crumbs
    if not words or words[-1].end < recent:
        # Nothing is said in the last seconds: any pause there will do.
        return Cut(len(words), _quietest(loudness, recent, end - _EDGE))
    counts = [
        count
        for count in range(max(1, num_stable), len(words))
        if words[count - 1].end >= recent or words[count].start >= recent
    ]
    if end - words[-1].end >= _EDGE or not counts:
        counts.append(len(words))  # the last word is whole, or there is no other choice
    places = {count: _place(loudness, words, count, end) for count in counts}
    count = min(counts, key=lambda count: (_depth(loudness, places[count]), -count))
    return Cut(count, places[count])


def _place(
    loudness: NDArray[np.float64], words: Sequence[TimedWord], count: int, end: int
) -> Samples:
    """The quietest place between word `count - 1` and the next, as far as their times are sure."""
    before = words[count - 1].end
    after = words[count].start if count < len(words) else Samples(max(before, end - _EDGE))
    low = max(min(before, after) - _SLACK, words[count - 1].start)
    return _quietest(loudness, low, min(max(before, after) + _SLACK, end))


def _depth(loudness: NDArray[np.float64], at: Samples) -> float:
    return float(loudness[min(at // HOP_SAMPLES, len(loudness) - 1)])


def _loudness(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Smoothed power of each 10 ms hop, of which an over-long window has many."""
    hops = len(samples) // HOP_SAMPLES
    power = np.square(samples[: hops * HOP_SAMPLES], dtype=np.float64)
    power = power.reshape(hops, HOP_SAMPLES).mean(axis=1)
    kernel = np.full(_SMOOTH_HOPS, 1 / _SMOOTH_HOPS)
    return np.convolve(np.pad(power, _SMOOTH_HOPS // 2, mode="edge"), kernel, mode="valid")


def _quietest(loudness: NDArray[np.float64], low: int, high: int) -> Samples:
    """Middle of the quietest hop within samples [low, high); `low` where that holds no hop."""
    first, last = max(0, low // HOP_SAMPLES), min(len(loudness), -(-high // HOP_SAMPLES))
    if last <= first:
        return Samples(max(0, low))
    return Samples((first + int(np.argmin(loudness[first:last]))) * HOP_SAMPLES + HOP_SAMPLES // 2)
