import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from stream_server.loop_lag import RECENT_S, SAMPLE_S, LoopLag, watch


def test_before_the_first_reading_there_is_no_lag() -> None:
    assert LoopLag().max_s == 0.0


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 5)), min_size=1))
def test_the_largest_of_the_last_minute_is_kept(steps: list[tuple[float, float]]) -> None:
    lag, now, readings = LoopLag(), 0.0, list[tuple[float, float]]()
    for passed, value in steps:
        now += passed
        readings.append((now, value))
        lag.observe(value, now)
        assert lag.max_s == max(v for at, v in readings if at >= now - RECENT_S)
    assert lag.histogram.count == len(steps)


def test_reading_the_largest_does_not_forget_it() -> None:
    lag = LoopLag()
    lag.observe(0.5, 0.0)
    assert (lag.max_s, lag.max_s) == (0.5, 0.5)


def test_a_loop_that_is_blocked_is_late_by_as_much() -> None:
    async def scenario() -> LoopLag:
        lag = LoopLag()
        watching = asyncio.create_task(watch(lag))
        await asyncio.sleep(0)  # it has begun to sleep
        time.sleep(3 * SAMPLE_S)  # noqa: ASYNC251  # what is measured
        while not lag.histogram.count:  # noqa: ASYNC110  # until a reading was taken
            await asyncio.sleep(0)
        watching.cancel()
        return lag

    assert asyncio.run(scenario()).max_s >= 1.9 * SAMPLE_S
