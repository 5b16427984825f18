import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audio.units import Samples
from stream_server.sample_buffer import INITIAL_SAMPLES, SampleBuffer


def ramp(start: int, length: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.arange(start, start + length, dtype=np.float32)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3 * INITIAL_SAMPLES), st.floats(0, 1)), max_size=12))
def test_what_is_kept_is_what_was_appended(steps: list[tuple[int, float]]) -> None:
    buffer = SampleBuffer()
    for length, share in steps:
        buffer.append(ramp(buffer.end, length))
        buffer.discard_before(Samples(buffer.start + int((buffer.end - buffer.start) * share)))
        kept = buffer.read(buffer.start, buffer.end)
        assert np.array_equal(kept, ramp(buffer.start, buffer.end - buffer.start))


def test_what_was_read_does_not_change_later() -> None:
    buffer = SampleBuffer()
    buffer.append(ramp(0, 100))
    read = buffer.read(Samples(10), Samples(20))
    buffer.discard_before(Samples(100))
    buffer.append(np.zeros(INITIAL_SAMPLES, np.float32))
    assert np.array_equal(read, ramp(10, 10))


def test_discarding_goes_neither_back_nor_past_the_end() -> None:
    buffer = SampleBuffer()
    buffer.append(ramp(0, 100))
    buffer.discard_before(Samples(50))
    buffer.discard_before(Samples(10))
    assert buffer.start == 50
    buffer.discard_before(Samples(1000))
    assert (buffer.start, buffer.end) == (100, 100)


@pytest.mark.parametrize(("start", "end"), [(49, 60), (60, 101), (70, 60)])
def test_samples_that_are_not_held_cannot_be_read(start: int, end: int) -> None:
    buffer = SampleBuffer()
    buffer.append(ramp(0, 100))
    buffer.discard_before(Samples(50))
    with pytest.raises(ValueError, match=f"samples {start} to {end}: only 50 to 100 are held"):
        buffer.read(Samples(start), Samples(end))
