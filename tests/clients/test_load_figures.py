import json
import statistics
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.load_figures import (
    MAX_LATE_MS,
    NUM_QUANTILES,
    PERCENTILES,
    Lateness,
    LoadRun,
    ProcessRecord,
    distribution,
    level_figures,
    percentile,
)
from clients.load_meter import METRICS, HeardText, SessionRecord
from clients.load_plan import Part, SessionPlan
from clients.word_errors import WordErrors, count_word_errors

RATE = 16_000
floats = st.floats(-1e6, 1e6)


@given(st.lists(floats, min_size=2))
def test_percentiles_are_those_of_the_textbook(values: list[float]) -> None:
    expected = statistics.quantiles(values, n=100, method="inclusive")
    ordered = sorted(values)
    found = [percentile(ordered, share / 100) for share in range(1, 100)]
    assert found == pytest.approx(expected)
    assert percentile(ordered, 1.0) == ordered[-1]


def test_of_no_sample_and_of_one_there_is_not_much_to_say() -> None:
    assert distribution([]) == {"count": 0} | dict.fromkeys(PERCENTILES)
    assert distribution([2.0]) == {"count": 1} | dict.fromkeys(PERCENTILES, 2.0)


@given(st.lists(st.floats(-1, 4.9), min_size=1))
def test_lateness_is_told_to_the_millisecond_and_early_is_on_time(late_s: list[float]) -> None:
    lateness = Lateness()
    for late in late_s:
        lateness.add(late)
    counted = [max(0, int(late * 1000)) for late in late_s]
    assert lateness.percentile_ms(1.0) == max(counted) + 1
    assert lateness.percentile_ms(0.5) == statistics.median_low(counted) + 1


def test_what_is_very_late_is_told_as_the_last_bucket() -> None:
    lateness = Lateness()
    lateness.add(1e6)
    assert lateness.percentile_ms(1.0) == MAX_LATE_MS + 1


def test_without_a_chunk_nothing_was_late() -> None:
    assert Lateness().percentile_ms(0.5) is None


def plan(number: int, *parts: Part, **settings: Any) -> SessionPlan:
    return SessionPlan(
        number=number,
        kind=settings.get("kind", "speech"),
        msgpack=settings.get("msgpack", False),
        starts_at_s=0.0,
        parts=parts,
        chunk_seed="",
    )


def done(number: int, *heard: HeardText, **fields: Any) -> SessionRecord:
    record = SessionRecord(number, outcome="done", heard=list(heard))
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def run_of(*records: SessionRecord, plans: Sequence[SessionPlan]) -> LoadRun:
    return LoadRun(
        plans=plans,
        clip_samples=[2 * RATE],
        transcripts=["ONE TWO THREE FOUR"],
        unloaded={0: "One two three for."},
        processes=[ProcessRecord(list(records), wall_s=10.0, cpu_s=1.0)],
        counts_from=5.0,
    )


TALK = (Part(None, 0, RATE), Part(0, 0, 2 * RATE), Part(None, 0, 57 * RATE))


def test_samples_count_once_everybody_has_joined_but_connecting_always_does() -> None:
    record = done(0)
    for metric in METRICS:
        record.samples[metric] += [(4.9, 9.0), (5.0, 1.0), (6.0, 2.0), (6.5, 3.0)]
    level = level_figures(run_of(record, plans=[plan(0, *TALK)]), None)
    counts = {metric: found["count"] for metric, found in level["latency"].items()}
    assert counts == dict.fromkeys(METRICS, 3) | {"connect_s": 4}
    assert level["latency"]["final_s"]["max"] == 3.0
    assert len(level["quantiles"]["final_s"]) == NUM_QUANTILES
    assert level["quantiles"]["final_s"][:: NUM_QUANTILES - 1] == [1.0, 3.0]
    ages = level["over_time"]["partial_age_s"]
    assert [(second["at_s"], second["count"], second["max"]) for second in ages] == [
        (5, 1, 1.0),
        (6, 2, 3.0),
    ]
    assert level["per_session"][0]["latency"]["final_s"]["count"] == 4


def test_words_are_compared_with_the_transcript_and_with_the_unloaded_decode() -> None:
    heard = HeardText(1.0, 3.1, "one two tree for")
    level = level_figures(run_of(done(0, heard), plans=[plan(0, *TALK)]), count_word_errors)
    errors = level["word_errors"]
    assert errors["clips"] == 1
    assert errors["live_to_transcript"]["rate"] == 0.5
    assert errors["unloaded_to_transcript"]["rate"] == 0.25
    assert errors["live_to_unloaded"] == {
        "rate": 0.25,
        "words": 4,
        "substitutions": 1,
        "deletions": 0,
        "insertions": 0,
    }


def test_a_session_that_failed_is_not_held_to_its_clips() -> None:
    failed = SessionRecord(0, outcome="failed", failure="connection_lost")
    level = level_figures(run_of(failed, plans=[plan(0, *TALK)]), count_word_errors)
    assert level["word_errors"]["live_to_transcript"]["words"] == 0
    assert level["errors"] == {"connection_lost": 1}


def test_without_a_way_to_count_word_errors_there_are_none() -> None:
    assert level_figures(run_of(done(0), plans=[plan(0, *TALK)]), None)["word_errors"] is None


def test_invented_words_are_told_per_minute_of_what_was_to_be_heard() -> None:
    noise = plan(1, Part(None, 0, 120 * RATE), kind="noise")
    records = (
        done(0, HeardText(1.0, 3.0, "one two"), HeardText(5.0, 6.0, "thank you"), audio_s=62.0),
        done(1, HeardText(8.0, 9.0, "you"), audio_s=120.0),
    )
    level = level_figures(run_of(*records, plans=[plan(0, *TALK), noise]), None)
    assert level["invented"] == {
        "noise": {"words": 1, "minutes": 2.0, "per_minute": 0.5},
        "pauses": {"words": 2, "minutes": 1.0, "per_minute": 2.0},
    }


def test_everything_else_adds_up_over_sessions_and_processes() -> None:
    first = done(
        0, HeardText(1, 2, "a"), partials=4, partial_words=10, changed_words=1, audio_s=30.0
    )
    first.speech_s, first.warnings["lagging"], first.slowest_interval_ms = 9.0, 2, 800
    second = done(1, partials=2, partial_words=10, changed_words=3, audio_s=60.0, retractions=2)
    second.missing_finals, second.warnings["lagging"], second.slowest_interval_ms = 1, 1, 1600
    third = SessionRecord(2, outcome="refused", failure="HTTP 503", retry_after_s=3)
    fourth = SessionRecord(3, outcome="refused", failure="HTTP 503", retry_after_s=1)
    processes = [
        ProcessRecord([second, fourth], wall_s=10.0, cpu_s=2.5, blocked_s=0.5),
        ProcessRecord([third, first], wall_s=10.0, cpu_s=1.0),
    ]
    processes[0].lateness.add(0.0025)
    plans = [plan(number, *TALK, msgpack=number == 1) for number in range(4)]
    run = LoadRun(plans, [2 * RATE], ["one"], {}, processes, counts_from=0.0)
    level = level_figures(run, lambda pairs: WordErrors())
    assert level["sessions"] == 4
    assert level["outcomes"] == {"done": 2, "refused": 2}
    assert level["refusals"] == {"HTTP 503": 2}
    assert level["retry_after_s"] == [1, 3]
    assert level["warnings"] == {"lagging": 3}
    assert level["slowest_interval_ms"] == 1600
    assert (level["audio_s"], level["speech_share"]) == (90.0, 0.1)
    assert (level["partials"], level["finals"]) == (6, 1)
    assert (level["missing_finals"], level["retractions"]) == (1, 2)
    assert level["flicker"] == 0.2
    late_ms = dict.fromkeys(PERCENTILES, 3)
    assert level["generator"] == [
        {"sessions": 2, "cpu_share": 0.25, "blocked_s": 0.5, "late_ms": late_ms},
        {"sessions": 2, "cpu_share": 0.1, "blocked_s": 0.0, "late_ms": dict.fromkeys(PERCENTILES)},
    ]
    told = [
        (session["number"], session["subprotocol"], session["outcome"])
        for session in level["per_session"]
    ]
    assert told == [
        (0, "json", "done"),
        (1, "msgpack", "done"),
        (2, "json", "refused"),
        (3, "json", "refused"),
    ]
    json.dumps(level, allow_nan=False)


def test_where_nobody_came_in_the_figures_are_empty_and_not_missing() -> None:
    refused = SessionRecord(0, outcome="refused", failure="HTTP 401")
    level = level_figures(run_of(refused, plans=[plan(0, *TALK)]), count_word_errors)
    assert level["flicker"] is None
    assert level["speech_share"] is None
    assert level["retry_after_s"] is None
    assert level["slowest_interval_ms"] is None
    assert level["quantiles"]["final_s"] == []
    assert level["invented"]["pauses"]["per_minute"] is None
