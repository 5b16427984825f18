"""The meter of slices: how many windows may be encoded before somebody waits too long."""

from hypothesis import assume, given
from hypothesis import strategies as st

from engine.audio.units import Positions
from engine.scheduling.contexts import CONTEXT_BUCKETS
from engine.scheduling.slices import SliceMeter

FIRST, MOST = Positions(512), 16

contexts = st.sampled_from(CONTEXT_BUCKETS)
# Nothing, or at least a tick of the clock.
costs_s = st.just(0.0) | st.floats(1e-9, 10.0)
slices = st.lists(st.tuples(contexts, st.integers(1, MOST), costs_s), max_size=12)


def meter(budget_s: float = 0.05) -> SliceMeter:
    return SliceMeter(budget_s, FIRST, MOST)


@given(slices, contexts, st.floats(1e-6, 1.0))
def test_a_slice_holds_one_row_at_least_and_never_more_than_the_most(
    seen: list[tuple[Positions, int, float]], context: Positions, budget_s: float
) -> None:
    given_meter = meter(budget_s)
    for observed, num_rows, elapsed_s in seen:
        given_meter.observe(observed, num_rows, elapsed_s)
    assert 1 <= given_meter.rows(context) <= MOST


@given(contexts)
def test_before_anything_was_measured_a_slice_is_of_the_configured_positions(
    context: Positions,
) -> None:
    assert meter().rows(context) == max(1, FIRST // context)
    wide = SliceMeter(0.05, Positions(10**6), MOST)
    assert wide.rows(context) == MOST


@given(contexts, st.floats(1e-4, 0.2), st.floats(1e-3, 0.5))
def test_a_slice_of_rows_of_the_measured_cost_fits_the_budget_and_one_row_more_does_not(
    context: Positions, row_s: float, budget_s: float
) -> None:
    given_meter = meter(budget_s)
    given_meter.observe(context, 4, 4 * row_s)
    rows = given_meter.rows(context)
    if rows > 1:
        assert rows * row_s <= budget_s * (1 + 1e-9)
    if rows < MOST:
        assert (rows + 1) * row_s > budget_s * (1 - 1e-9)


@given(
    st.dictionaries(contexts, st.floats(1e-4, 0.2), min_size=1, max_size=5),
    contexts,
    st.floats(1e-3, 0.5),
)
def test_a_context_never_measured_costs_what_the_dearest_position_known_costs(
    known: dict[Positions, float], context: Positions, budget_s: float
) -> None:
    assume(context not in known)
    given_meter = meter(budget_s)
    for observed, row_s in known.items():
        given_meter.observe(observed, 1, row_s)
    dearest_s = max(row_s / observed for observed, row_s in known.items())
    alone = meter(budget_s)
    alone.observe(context, 1, context * dearest_s)
    assert given_meter.rows(context) == alone.rows(context)


@given(slices, contexts, contexts)
def test_a_slice_that_took_no_time_teaches_nothing(
    seen: list[tuple[Positions, int, float]], quick: Positions, asked: Positions
) -> None:
    untaught, taught = meter(), meter()
    for observed, num_rows, elapsed_s in seen:
        for each in (untaught, taught):
            each.observe(observed, num_rows, elapsed_s)
    taught.observe(quick, 3, 0.0)
    assert taught.rows(asked) == untaught.rows(asked)


def test_the_figure_follows_a_device_that_has_become_slower_in_a_few_slices() -> None:
    given_meter = meter(budget_s=0.08)
    context = Positions(512)
    given_meter.observe(context, 8, 0.08)
    assert given_meter.rows(context) == 8
    given_meter.observe(context, 8, 0.16)
    # One slow slice is not believed at once.
    assert 4 < given_meter.rows(context) < 8
    for _ in range(20):
        given_meter.observe(context, 8, 0.16)
    assert given_meter.rows(context) in (3, 4)


def test_a_burst_after_single_windows_is_encoded_in_large_slices_within_two() -> None:
    """A device that takes 2.5 ms to begin and 0.5 ms for each window: 35 of them in 20 ms."""
    given_meter = SliceMeter(0.02, FIRST, 256)
    context = Positions(448)
    for _ in range(50):
        given_meter.observe(context, 1, 0.003)
    held = []
    for _ in range(3):
        rows = given_meter.rows(context)
        held.append(rows)
        given_meter.observe(context, rows, 0.0025 + 0.0005 * rows)
    assert held[0] == 6
    assert held[1] > 15
    assert 20 < held[2] <= 35
