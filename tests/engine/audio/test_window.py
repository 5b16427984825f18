import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import Samples
from engine.audio.window import Window

START = Samples(1000)


def ramp(count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Every sample tells where it came from."""
    return np.arange(count, dtype=np.float32)


# Beyond 64,000 samples the buffer has to grow.
chunk_sizes = st.lists(st.integers(0, 50_000), min_size=1, max_size=6)


@given(chunk_sizes)
def test_any_chunking_gives_the_same_view(sizes: list[int]) -> None:
    audio = ramp(sum(sizes))
    window = Window(START)
    for chunk in np.split(audio, np.cumsum(sizes)[:-1]):
        window.append(chunk)
    assert (window.num_samples, window.end) == (len(audio), START + len(audio))
    np.testing.assert_array_equal(window.view(len(audio)), audio)
    np.testing.assert_array_equal(window.view(len(audio) // 2), audio[: len(audio) // 2])


@given(chunk_sizes, chunk_sizes, st.floats(0, 1))
def test_views_handed_out_earlier_never_change(
    before: list[int], after: list[int], cut_at: float
) -> None:
    window = Window(START)
    for size in before:
        window.append(ramp(size))
    view = window.view(window.num_samples)
    copy = view.copy()
    for size in after:
        window.append(-ramp(size))
    window.cut(Samples(START + int(cut_at * window.num_samples)))
    window.append(-ramp(70_000))
    np.testing.assert_array_equal(view, copy)


def test_a_view_cannot_be_written() -> None:
    window = Window(START)
    window.append(ramp(10))
    with pytest.raises(ValueError, match="read-only"):
        window.view(10)[0] = 1.0


@given(st.integers(0, 100_000), st.floats(0, 1), st.integers(0, 70_000))
def test_a_cut_keeps_exactly_the_rest(count: int, share: float, more: int) -> None:
    audio = ramp(count + more)
    window = Window(START)
    window.append(audio[:count])
    at = int(share * count)
    window.cut(Samples(START + at))
    assert (window.start, window.num_samples, window.end) == (START + at, count - at, START + count)
    window.append(audio[count:])
    np.testing.assert_array_equal(window.view(window.num_samples), audio[at:])


def test_a_view_of_more_than_is_held_is_refused() -> None:
    window = Window(START)
    window.append(ramp(10))
    with pytest.raises(ValueError, match="view of 11 samples asked for, 10 are held"):
        window.view(11)


@pytest.mark.parametrize("at", [999, 1011])
def test_a_cut_outside_of_the_window_is_refused(at: int) -> None:
    window = Window(START)
    window.append(ramp(10))
    with pytest.raises(ValueError, match=rf"cut at {at} is outside of \[1000, 1010\]"):
        window.cut(Samples(at))
