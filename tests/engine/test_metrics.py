import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.metrics import JOB_KINDS, EngineMetrics, Histogram, StepMetrics
from engine.scheduling.job import Kind

VALUES = st.lists(st.floats(min_value=0, max_value=10))


def test_steps_add_up_by_kind() -> None:
    metrics = EngineMetrics()
    metrics.record_step("DecodeStep", 3, 0.5)
    metrics.record_step("DecodeStep", 4, 0.25)
    metrics.record_step("EncodeStep", 1, 1.0)
    decode, encode = metrics.steps["DecodeStep"], metrics.steps["EncodeStep"]
    assert (decode.count, decode.rows, decode.seconds) == (2, 7, 0.75)
    assert (encode.count, encode.rows, encode.seconds) == (1, 1, 1.0)
    assert len(metrics.steps) == 2


def test_two_engines_count_apart() -> None:
    one = EngineMetrics()
    one.record_step("DecodeStep", 1, 0.1)
    one.record_wait("final", 0.1)
    assert EngineMetrics() == EngineMetrics(steps={})
    assert one != EngineMetrics()


def test_waits_are_kept_for_every_kind_of_job() -> None:
    assert tuple(kind.name.lower() for kind in Kind) == JOB_KINDS
    metrics = EngineMetrics()
    metrics.record_wait("early", 0.3)
    assert {kind: wait.count for kind, wait in metrics.waits.items()} == {
        "final": 0,
        "cut": 0,
        "early": 1,
        "partial": 0,
    }


def test_a_bound_belongs_to_the_bucket_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.cumulative() == [2, 4, 5]


@given(VALUES)
def test_every_value_is_counted_once_and_at_every_bound_it_does_not_exceed(
    values: list[float],
) -> None:
    histogram = Histogram((0.5, 1.0, 5.0))
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))
    assert histogram.cumulative() == [
        *(sum(value <= bound for value in values) for bound in histogram.bounds),
        len(values),
    ]


def test_calls_of_anything_can_be_counted_like_steps() -> None:
    calls = StepMetrics()
    calls.record(rows=64, seconds=0.25)
    assert (calls.count, calls.rows, calls.seconds) == (1, 64, 0.25)
