import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import (
    MAX_WINDOW_FRAMES,
    MAX_WINDOW_POSITIONS,
    MAX_WINDOW_SAMPLES,
    SAMPLES_PER_POSITION,
    positions_covering,
    samples_from_ms,
    samples_from_seconds,
    seconds_from_samples,
)


def test_a_whole_window_has_whispers_sizes() -> None:
    assert (MAX_WINDOW_SAMPLES, MAX_WINDOW_FRAMES, MAX_WINDOW_POSITIONS) == (480_000, 3000, 1500)


@given(st.integers(0, 10**9))
def test_samples_survive_the_way_over_seconds(samples: int) -> None:
    assert samples_from_seconds(seconds_from_samples(samples)) == samples


@pytest.mark.parametrize(("milliseconds", "samples"), [(0, 0), (1, 16), (0.04, 1), (400, 6400)])
def test_milliseconds_become_the_nearest_sample(milliseconds: float, samples: int) -> None:
    assert samples_from_ms(milliseconds) == samples


@given(st.integers(0, MAX_WINDOW_SAMPLES))
def test_positions_cover_the_samples_and_none_is_idle(samples: int) -> None:
    positions = positions_covering(samples)
    assert (positions - 1) * SAMPLES_PER_POSITION < samples or positions == 0
    assert samples <= positions * SAMPLES_PER_POSITION
