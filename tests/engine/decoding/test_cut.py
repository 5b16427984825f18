from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE, Samples
from engine.decoding.cut import TimedWord, choose_cut

SECOND = SAMPLE_RATE


def audio(seconds: float, *pauses: tuple[float, float, float]) -> NDArray[np.float32]:
    """Noise of level 1 with `pauses` (from, to, level) in seconds."""
    samples = np.random.default_rng(0).standard_normal(int(seconds * SECOND)).astype(np.float32)
    for begin, end, level in pauses:
        samples[int(begin * SECOND) : int(end * SECOND)] *= level
    return samples


def timed(*times: tuple[float, float]) -> list[TimedWord]:
    return [TimedWord(Samples(int(a * SECOND)), Samples(int(b * SECOND))) for a, b in times]


def back_to_back(*ends: float) -> list[TimedWord]:
    """Words without gaps, as the alignment gives them."""
    return timed(*zip((0.0, *ends), ends, strict=False))


def test_the_deepest_pause_between_two_words_wins() -> None:
    words = back_to_back(*np.arange(1.0, 28.0, 1.0))
    pauses = (10.0, 10.2, 0.0), (24.95, 25.1, 0.05), (25.95, 26.1, 0.01), (26.3, 26.6, 0.0)
    samples = audio(28, *pauses)
    cut = choose_cut(samples, words, num_stable=3)
    # Not the silence at 10 s, which is too far back, nor the one at 26.3 s, inside a word.
    assert cut.num_words == 26
    assert 25.95 * SECOND <= cut.at <= 26.1 * SECOND


def test_the_last_word_is_left_to_the_next_segment_where_it_may_not_be_whole() -> None:
    words = back_to_back(20.0, 26.0, 27.9)
    cut = choose_cut(audio(28, (25.9, 26.1, 0.1)), words, num_stable=0)
    assert cut.num_words == 2


def test_silence_at_the_end_closes_every_word() -> None:
    words = back_to_back(20.0, 26.0, 27.0)
    cut = choose_cut(audio(28, (27.0, 28.0, 0.0)), words, num_stable=0)
    assert cut.num_words == 3
    assert 27 * SECOND <= cut.at < 28 * SECOND


def test_where_nothing_was_said_lately_every_word_is_closed_in_the_silence() -> None:
    cut = choose_cut(audio(28, (24.0, 24.5, 0.0)), back_to_back(3.0, 5.0), num_stable=0)
    assert cut.num_words == 2
    assert 24 * SECOND <= cut.at <= 24.5 * SECOND


def test_without_words_the_window_is_cut_at_its_deepest_recent_pause() -> None:
    cut = choose_cut(audio(28, (5.0, 6.0, 0.0), (26.0, 26.3, 0.1)), [], num_stable=0)
    assert cut.num_words == 0
    assert 26 * SECOND <= cut.at <= 26.3 * SECOND


def test_stable_words_stay_in_their_segment_whatever_the_pauses() -> None:
    words = back_to_back(20.0, 25.0, 26.0, 27.0)
    samples = audio(28, (24.9, 25.1, 0.0), (25.9, 26.1, 0.1))
    assert choose_cut(samples, words, num_stable=0).num_words == 2
    assert choose_cut(samples, words, num_stable=3).num_words == 3
    assert choose_cut(samples, words, num_stable=4).num_words == 4


def test_a_short_window_is_not_cut_into_crumbs() -> None:
    assert choose_cut(audio(2, (0.0, 0.3, 0.0)), [], num_stable=0).at >= SECOND


@given(
    st.integers(SECOND, 12 * SECOND),
    st.lists(st.floats(0, 1), max_size=8),
    st.integers(0, 8),
    st.integers(0, 2**32 - 1),
)
def test_the_cut_splits_the_words_once_within_the_window(
    num_samples: int, boundaries: list[float], num_stable: int, seed: int
) -> None:
    times = [Samples(int(share * num_samples)) for share in sorted(boundaries)]
    words = [TimedWord(start, end) for start, end in pairwise(times)]
    num_stable = min(num_stable, len(words))
    samples = np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32)
    cut = choose_cut(samples, words, num_stable=num_stable)
    assert num_stable <= cut.num_words <= len(words)
    assert 0 < cut.at <= num_samples
    # Progress: the rest is what a window can hold, not nearly all of it again.
    assert cut.at >= num_samples // 2 - 0.1 * SECOND
    assert cut.num_words > 0 or not words
