"""Figures of a load test, made of records by hand."""

from typing import Any

from clients.load_figures import LoadRun, ProcessRecord, level_figures
from clients.load_meter import HeardText, SessionRecord
from clients.load_plan import Part, SessionPlan
from clients.word_errors import count_word_errors


def small_level() -> dict[str, Any]:
    """One session that was taken and one that was refused."""
    plan = SessionPlan(0, "speech", False, 0.0, (Part(0, 0, 32_000),), "")
    record = SessionRecord(0, outcome="done", audio_s=10.0, retractions=0)
    record.samples["final_s"] += [(1.0, 0.25), (2.0, 0.75)]
    record.samples["partial_age_s"] += [(0.5, 0.4), (1.5, 0.6), (1.6, 0.8)]
    record.heard.append(HeardText(0.0, 2.0, "hello word"))
    record.warnings["lagging"] = 2
    record.slowest_interval_ms = 800
    refused = SessionRecord(1, outcome="refused", failure="HTTP 503", retry_after_s=1)
    process = ProcessRecord([record, refused], wall_s=10.0, cpu_s=1.5)
    process.lateness.add(0.0042)
    run = LoadRun([plan, plan], [32_000], ["hello world"], {0: "hello word"}, [process], 0.0)
    return level_figures(run, count_word_errors)


def level_of(sessions: int, p95_s: float | None, age_s: float | None) -> dict[str, Any]:
    """A level of a search for the capacity, of which only two figures matter."""
    level = small_level() | {"sessions": sessions, "objections": []}
    level["latency"]["final_beyond_endpoint_s"]["p95"] = p95_s
    level["latency"]["partial_age_s"]["max"] = age_s
    return level


def document(*levels: dict[str, Any], capacity: int | None = None) -> dict[str, Any]:
    """What `starling loadtest` prints last."""
    return {
        "benchmark": "loadtest",
        "command": "starling loadtest --sessions 2",
        "settings": {"sessions": 2},
        "environment": {"began": "2026-11-21T12:00:00+00:00", "machine": "m", "python": "3"},
        "model": "tiny <b>",
        "clips": {"folder": None, "count": 1, "seconds": 2.0},
        "limits": None if capacity is None else {"p95_final_s": 0.5, "max_age_s": 2.0},
        "capacity": capacity,
        "levels": list(levels),
    }
