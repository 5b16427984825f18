"""Figures from two readings, with the readings written as a server writes them."""

from collections.abc import Mapping, Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.top_figures import Figures, ScrapeError, figures_between, quantile, read_scrape

BUILD = 'starling_build_info{device="cpu",dtype="bfloat16",model="embedded",version="1"} 1.0'
START = "process_start_time_seconds 1.7e+09"


def text(samples: Mapping[str, float], *more: str) -> str:
    lines = ['starling_sessions{state="open"} 2.0', BUILD, START, *more]
    return "\n".join([*lines, *(f"{name} {value}" for name, value in samples.items()), ""])


def between(
    before: Mapping[str, float], after: Mapping[str, float], seconds: float = 2.0
) -> Figures:
    return figures_between(
        read_scrape(text(before), 100.0), read_scrape(text(after), 100.0 + seconds)
    )


def buckets(name: str, counts: Sequence[float], *labels: str) -> dict[str, float]:
    """A histogram with the bounds 1 s and 2 s."""
    told = {}
    for bound, count in zip(("1.0", "2.0", "+Inf"), counts, strict=True):
        every = ",".join([*labels, f'le="{bound}"'])
        told[f"{name}_bucket{{{every}}}"] = count
    return told


def test_rates_are_what_grew_in_the_time_between() -> None:
    figures = between(
        {"starling_tokens_total": 100, "starling_audio_seconds_total": 7},
        {"starling_tokens_total": 130, "starling_audio_seconds_total": 23},
    )
    assert (figures.tokens_per_s, figures.audio_s_per_s) == (15, 8)


def test_shares_are_of_what_grew() -> None:
    figures = between(
        {
            "starling_audio_seconds_total": 100,
            "starling_speech_seconds_total": 100,
            "starling_drafted_tokens_total": 10,
            "starling_accepted_tokens_total": 0,
        },
        {
            "starling_audio_seconds_total": 110,
            "starling_speech_seconds_total": 105,
            "starling_drafted_tokens_total": 20,
            "starling_accepted_tokens_total": 9,
        },
    )
    assert (figures.speech_share, figures.acceptance) == (0.5, 0.9)


def test_a_share_of_nothing_is_unknown() -> None:
    figures = between({}, {})
    assert figures.speech_share is figures.acceptance is figures.vad_call_ms is None
    assert figures.final_latency.values_s is None


def test_steps_have_occupancy_time_and_their_share_of_the_time() -> None:
    kind = '{kind="decode"}'
    figures = between(
        {
            f"starling_step_rows_total{kind}": 1000,
            f"starling_step_seconds_count{kind}": 500,
            f"starling_step_seconds_sum{kind}": 10,
        },
        {
            f"starling_step_rows_total{kind}": 1080,
            f"starling_step_seconds_count{kind}": 520,
            f"starling_step_seconds_sum{kind}": 10.5,
        },
    )
    (step,) = figures.steps
    assert (step.kind, step.per_s, step.rows, step.share) == ("decode", 10, 4, 0.25)
    assert step.step_ms == pytest.approx(25)


def test_what_is_now_comes_from_the_later_reading() -> None:
    figures = between(
        {"starling_utterances": 1},
        {
            "starling_utterances": 5,
            "starling_session_limit": 64,
            "starling_outbox_messages_max": 3,
            "starling_overload_rung": 1,
            "starling_partial_interval_seconds": 0.8,
            "process_resident_memory_bytes": 1e9,
            "process_cpu_seconds_total": 3,
            'starling_device_memory_bytes{state="reserved"}': 5.0,
        },
    )
    assert (figures.utterances, figures.session_limit, figures.outbox_max) == (5, 64, 3)
    assert (figures.rung, figures.partial_interval_s) == (1, 0.8)
    assert (figures.memory_bytes, figures.cpu_cores) == (1e9, 1.5)
    assert figures.device_memory_bytes == {"reserved": 5}
    assert figures.sessions == {"open": 2}
    assert figures.build["dtype"] == "bfloat16"


def test_what_went_wrong_is_counted_between_the_readings_only() -> None:
    refused, error = 'starling_refusals_total{reason="%s"}', 'starling_errors_total{code="%s"}'
    figures = between(
        {refused % "capacity": 5, refused % "draining": 5, error % "bad_message": 1},
        {refused % "capacity": 7, refused % "draining": 5, error % "bad_message": 1},
    )
    assert (figures.refused, figures.errors) == ({"capacity": 2}, {})


def test_percentiles_are_of_what_was_observed_in_between() -> None:
    name = "starling_final_latency_seconds"
    figures = between(buckets(name, [100, 100, 100]), buckets(name, [100, 120, 120]))
    assert figures.final_latency.count == 20
    assert figures.final_latency.values_s == pytest.approx((1.5, 1.95, 1.99))


def test_a_percentile_beyond_the_last_bound_is_not_made_up() -> None:
    name = "starling_partial_lag_seconds"
    lag = between(buckets(name, [0, 0, 0]), buckets(name, [0, 0, 1])).partial_lag
    assert (lag.values_s, lag.last_bound_s) == ((inf, inf, inf), 2.0)


def test_waits_are_told_apart_by_the_kind_of_job() -> None:
    name = "starling_queue_wait_seconds"
    final, partial = 'kind="final"', 'kind="partial"'
    counts = {f"{name}_count{{{final}}}": 0.0, f"{name}_count{{{partial}}}": 0.0}
    figures = between(
        {},
        counts | buckets(name, [4, 4, 4], final) | buckets(name, [0, 8, 8], partial),
    )
    assert {kind: wait.count for kind, wait in figures.queue_wait.items()} == {
        "final": 4,
        "partial": 8,
    }
    assert figures.queue_wait["final"].values_s == pytest.approx((0.5, 0.95, 0.99))
    assert figures.queue_wait["partial"].values_s == pytest.approx((1.5, 1.95, 1.99))


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("starling_event_loop_lag_seconds_count", 500.0, 10.0),
        ("process_start_time_seconds", 1.0, 2.0),
    ],
)
def test_a_server_started_anew_counts_from_nothing(name: str, before: float, after: float) -> None:
    figures = between(
        {name: before, "starling_tokens_total": 1000},
        {name: after, "starling_tokens_total": 30},
    )
    assert figures.tokens_per_s == 15


@given(st.lists(st.floats(0, 2), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_right_to_its_bucket(values: list[float], share: float) -> None:
    bounds = [0.25, 0.5, 1.0, 2.0, inf]
    counts = [(bound, float(sum(value <= bound for value in values))) for bound in bounds]
    rank = share * len(values)
    exact = next(value for number, value in enumerate(sorted(values), 1) if number >= rank - 1e-9)
    found = quantile(counts, share)
    bucket = next(index for index, bound in enumerate(bounds) if exact <= bound)
    below = bounds[bucket - 1] if bucket else 0.0
    assert below <= found <= bounds[bucket]


def test_a_quantile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        quantile([(1.0, 0.0), (inf, 0.0)], 0.5)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("<html>", "Prometheus' text format"),
        ("", "not a Starling server"),
        ("up 1\n", "not a Starling server"),
        ("starling_sessions many\n", "Prometheus' text format"),
    ],
)
def test_what_is_no_starling_metrics_is_refused(body: str, sentence: str) -> None:
    with pytest.raises(ScrapeError, match=sentence):
        read_scrape(body, 0.0)
