from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.load import (
    LEAST_PARTIAL_SHARE,
    LEAST_SPEECH_S,
    LONGEST_INTERVAL_S,
    PROMISED_INTERVAL_S,
    TARGET_UTILISATION,
    Ask,
    LoadMeter,
    Rung,
    share_out,
)

asks = st.builds(Ask, cost_s=st.floats(1e-4, 1), interval_s=st.floats(0.1, 5))


def used(wanted: list[Ask], intervals_s: tuple[float, ...]) -> float:
    return sum(ask.cost_s / interval for ask, interval in zip(wanted, intervals_s, strict=True))


def test_everybody_gets_what_they_asked_for_where_there_is_time() -> None:
    shares = share_out([Ask(0.02, 0.4), Ask(0.1, 1.0)], share=0.16)
    assert shares.rung is Rung.AS_ASKED
    assert shares.intervals_s == (0.4, 1.0)


def test_nobody_speaks_and_nothing_is_shared() -> None:
    assert share_out([], share=0.5).intervals_s == ()


def test_all_intervals_are_widened_alike_while_what_is_promised_can_be_kept() -> None:
    wanted = [Ask(0.1, 0.4), Ask(0.2, 0.4)]
    shares = share_out(wanted, share=0.4)
    assert shares.rung is Rung.WIDENED
    assert shares.intervals_s == pytest.approx((0.75, 0.75))


def test_who_asked_for_less_is_not_widened_and_the_others_only_as_far_as_they_must() -> None:
    wanted = [Ask(0.1, 1.0), Ask(0.1, 0.4), Ask(0.1, 0.4)]
    shares = share_out(wanted, share=0.35)
    assert shares.intervals_s == pytest.approx((1.0, 0.8, 0.8))


def test_beyond_what_is_promised_the_windows_that_cost_most_wait_longest() -> None:
    wanted = [Ask(0.4, 0.4), Ask(0.1, 0.4), Ask(0.2, 0.4)]
    shares = share_out(wanted, share=0.3)
    assert shares.rung is Rung.UNEQUAL
    left = 0.3 - 0.1 / PROMISED_INTERVAL_S
    assert shares.intervals_s == pytest.approx(
        (0.4 / (left / 2), PROMISED_INTERVAL_S, 0.2 / (left / 2))
    )


def test_nobody_waits_longer_than_the_longest_unless_asked_to() -> None:
    shares = share_out([Ask(0.9, 0.4), Ask(0.9, 20.0)], share=0.05)
    assert shares.intervals_s == (LONGEST_INTERVAL_S, 20.0)


@given(wanted=st.lists(asks, max_size=12), share=st.floats(0.01, 1))
def test_no_interval_is_shorter_than_asked_and_the_share_is_kept_and_used(
    wanted: list[Ask], share: float
) -> None:
    shares = share_out(wanted, share)
    assert len(shares.intervals_s) == len(wanted)
    assert all(
        interval >= ask.interval_s for ask, interval in zip(wanted, shares.intervals_s, strict=True)
    )
    if max(shares.intervals_s, default=0.0) < LONGEST_INTERVAL_S:
        assert used(wanted, shares.intervals_s) <= share * (1 + 1e-9)
    if shares.rung is Rung.WIDENED:
        assert used(wanted, shares.intervals_s) == pytest.approx(share)
        assert max(shares.intervals_s) <= max(5.0, PROMISED_INTERVAL_S)


@given(wanted=st.lists(asks, min_size=1, max_size=8), low=st.floats(0.01, 0.5))
def test_more_of_the_device_never_widens_an_interval(wanted: list[Ask], low: float) -> None:
    shares = [share_out(wanted, low * times) for times in (1.0, 1.5, 2.0)]
    for less, more in pairwise(shares):
        assert all(
            wide >= narrow * (1 - 1e-9)
            for wide, narrow in zip(less.intervals_s, more.intervals_s, strict=True)
        )
        assert less.rung >= more.rung


def test_before_anything_was_observed_partials_have_all_there_is() -> None:
    meter = LoadMeter()
    meter.advance(100.0)
    meter.spend_on_final(5.0)
    assert meter.partial_share == TARGET_UTILISATION
    assert meter.s_per_position == 0.0


def test_finals_take_from_the_share_of_partials_and_never_all_of_it() -> None:
    meter = LoadMeter()
    for second in range(60):
        meter.advance(float(second))
        meter.spend_on_final(0.3)
    assert meter.partial_share == pytest.approx(TARGET_UTILISATION - 0.3, abs=0.06)
    for second in range(60, 120):
        meter.advance(float(second))
        meter.spend_on_final(0.9)
    assert meter.partial_share == LEAST_PARTIAL_SHARE


def test_an_idle_device_forgets_its_load() -> None:
    meter = LoadMeter()
    for second in range(30):
        meter.advance(float(second))
        meter.spend_on_final(0.7)
    busy = meter.partial_share
    meter.advance(60.0)
    assert busy < 0.2
    assert meter.partial_share == pytest.approx(TARGET_UTILISATION, abs=0.01)


def test_the_cost_of_a_position_is_that_of_recent_partials_and_outlives_a_pause() -> None:
    meter = LoadMeter()
    for second in range(60):
        meter.advance(float(second))
        for _ in range(10):
            meter.begin_partial(100)
            meter.spend_on_partial(0.02 if second < 30 else 0.04)
        if second == 29:
            assert meter.s_per_position == pytest.approx(0.0002)
    assert meter.s_per_position == pytest.approx(0.0004, rel=0.01)
    meter.advance(7200.0)
    assert meter.s_per_position == pytest.approx(0.0004, rel=0.01)


def test_the_cost_of_speech_is_its_finals_and_partials_at_the_promised_interval() -> None:
    meter = LoadMeter()
    for second in range(30):
        meter.advance(float(second))
        meter.hear(2.0)
        meter.spend_on_final(0.1)
        for _ in range(3):  # more often than promised, which is not counted
            meter.begin_partial(100)
            meter.spend_on_partial(0.16)
    expected = 0.05 + 0.16 / PROMISED_INTERVAL_S
    assert meter.s_per_speech_s == pytest.approx(expected)
    meter.advance(7200.0)
    assert meter.s_per_speech_s == pytest.approx(expected)


def test_a_few_words_say_nothing_about_what_speech_costs() -> None:
    meter = LoadMeter()
    meter.advance(0.0)
    meter.hear(LEAST_SPEECH_S - 1)
    meter.spend_on_final(1.0)
    assert meter.s_per_speech_s == 0.0
    meter.hear(1.0)
    assert meter.s_per_speech_s == pytest.approx(1.0 / LEAST_SPEECH_S)


def test_a_clock_that_stands_still_or_goes_back_changes_nothing() -> None:
    meter = LoadMeter()
    meter.advance(10.0)
    meter.advance(20.0)
    meter.spend_on_final(3.0)
    before = meter.partial_share
    meter.advance(20.0)
    meter.advance(19.0)
    assert meter.partial_share == before
