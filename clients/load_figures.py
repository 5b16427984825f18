"""What a load test found, as plain values: the document that is printed, saved and plotted.

Pure. Every duration is in seconds, every percentile is of all sessions' samples together; samples
taken while sessions were still joining do not count, errors and retractions always do.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from clients.load_meter import METRICS, SessionRecord
from clients.load_plan import SessionPlan
from clients.load_transcripts import invented_words, passages, silent_s
from clients.word_errors import WordErrors

PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
NUM_QUANTILES: Final = 101  # of each distribution in the document: enough to plot it
MAX_LATE_MS: Final = 5000  # the last bucket of a generator's lateness

CountWordErrors = Callable[[Sequence[tuple[str, str]]], WordErrors]


@dataclass(slots=True)
class Lateness:
    """How late chunks were handed over, in buckets of 1 ms: bounded, however long the run."""

    counts: list[int] = field(default_factory=lambda: [0] * (MAX_LATE_MS + 1))

    def add(self, late_s: float) -> None:
        """Count one chunk; one that was early was on time."""
        self.counts[min(max(int(late_s * 1000), 0), MAX_LATE_MS)] += 1

    def percentile_ms(self, share: float) -> int | None:
        """Upper edge of the bucket that holds the percentile; None without chunks."""
        total = sum(self.counts)
        if not total:
            return None
        rank, seen = max(1, math.ceil(share * total)), 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if seen >= rank:
                return bucket + 1
        raise AssertionError("the ranks end at the total")


@dataclass(slots=True)
class ProcessRecord:
    """What one generating process did, and what that cost it."""

    sessions: list[SessionRecord]
    wall_s: float = 0.0
    cpu_s: float = 0.0
    lateness: Lateness = field(default_factory=Lateness)
    blocked_s: float = 0.0  # sends that waited for a server which was not reading


@dataclass(frozen=True, slots=True)
class LoadRun:
    """A load as it was planned and as it went. Readings count from its beginning."""

    plans: Sequence[SessionPlan]
    clip_samples: Sequence[int]
    transcripts: Sequence[str]
    unloaded: Mapping[int, str]  # what the server hears in a clip with nothing else to do
    processes: Sequence[ProcessRecord]
    counts_from: float


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value that `share` of a sorted sequence does not exceed, interpolated."""
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def distribution(values: Sequence[float]) -> dict[str, Any]:
    """Count and percentiles of a sample; null where it is empty."""
    ordered = sorted(values)
    return {
        "count": len(ordered),
        **{name: percentile(ordered, share) for name, share in PERCENTILES.items()},
    }


def level_figures(run: LoadRun, count_word_errors: CountWordErrors | None) -> dict[str, Any]:
    """Everything about one load. Without a way to count word errors there are none."""
    records = sorted(
        (record for process in run.processes for record in process.sessions),
        key=lambda record: record.number,
    )
    counted = {
        metric: [
            (now, value)
            for record in records
            for now, value in record.samples[metric]
            # Sessions connect while others join, and never again.
            if now >= run.counts_from or metric == "connect_s"
        ]
        for metric in METRICS
    }
    values = {metric: sorted(value for _, value in pairs) for metric, pairs in counted.items()}
    audio_s = sum(record.audio_s for record in records)
    partial_words = sum(record.partial_words for record in records)
    return {
        "sessions": len(run.plans),
        "outcomes": dict(Counter(record.outcome for record in records)),
        "errors": _failures(records, "failed"),
        "refusals": _failures(records, "refused"),
        "retry_after_s": _range(r.retry_after_s for r in records if r.retry_after_s is not None),
        "warnings": dict(sum((record.warnings for record in records), Counter[str]())),
        "slowest_interval_ms": max(
            (r.slowest_interval_ms for r in records if r.slowest_interval_ms is not None),
            default=None,
        ),
        "audio_s": audio_s,
        "speech_share": sum(r.speech_s for r in records) / audio_s if audio_s else None,
        "partials": sum(record.partials for record in records),
        "finals": sum(len(record.heard) for record in records),
        "missing_finals": sum(record.missing_finals for record in records),
        "retractions": sum(record.retractions for record in records),
        "flicker": (
            sum(record.changed_words for record in records) / partial_words
            if partial_words
            else None
        ),
        "latency": {metric: distribution(values[metric]) for metric in METRICS},
        "quantiles": {metric: _quantiles(values[metric]) for metric in METRICS},
        "over_time": {
            metric: _over_time(counted[metric])
            for metric in ("partial_age_s", "final_beyond_endpoint_s")
        },
        "word_errors": _word_errors(run, records, count_word_errors),
        "invented": _invented(run, records),
        "generator": [_generator(process) for process in run.processes],
        "per_session": [_session(record, run.plans[record.number]) for record in records],
    }


def _failures(records: Sequence[SessionRecord], outcome: str) -> dict[str, int]:
    return dict(Counter(str(r.failure) for r in records if r.outcome == outcome))


def _range(values: Any) -> list[int] | None:
    held = list(values)
    return [min(held), max(held)] if held else None


def _quantiles(ordered: Sequence[float]) -> list[float]:
    shares = (n / (NUM_QUANTILES - 1) for n in range(NUM_QUANTILES if ordered else 0))
    return [value for share in shares if (value := percentile(ordered, share)) is not None]


def _over_time(pairs: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """The distribution of every whole second that has samples."""
    seconds: dict[int, list[float]] = {}
    for now, value in pairs:
        seconds.setdefault(int(now), []).append(value)
    return [{"at_s": at, **distribution(seconds[at])} for at in sorted(seconds)]


def _word_errors(
    run: LoadRun, records: Sequence[SessionRecord], count: CountWordErrors | None
) -> dict[str, Any] | None:
    """Live against transcript, live against the unloaded decode, and that against the transcript.

    Over the clips that sessions which came to `done` said whole.
    """
    if count is None:
        return None
    found = [
        passage
        for record in records
        if record.outcome == "done"
        for passage in passages(run.plans[record.number].spans(run.clip_samples), record.heard)
    ]
    known = [passage for passage in found if all(clip in run.unloaded for clip in passage.clips)]

    def said(clips: Sequence[int]) -> str:
        return " ".join(run.transcripts[clip] for clip in clips)

    def unloaded(clips: Sequence[int]) -> str:
        return " ".join(run.unloaded[clip] for clip in clips)

    pairs = {
        "live_to_transcript": [(said(p.clips), p.heard) for p in found],
        "unloaded_to_transcript": [(said(p.clips), unloaded(p.clips)) for p in known],
        "live_to_unloaded": [(unloaded(p.clips), p.heard) for p in known],
    }
    return {"clips": sum(len(passage.clips) for passage in found)} | {
        name: _rate(count(of)) for name, of in pairs.items()
    }


def _rate(errors: WordErrors) -> dict[str, Any]:
    return {
        "rate": errors.rate,
        "words": errors.words,
        "substitutions": errors.substitutions,
        "deletions": errors.deletions,
        "insertions": errors.insertions,
    }


def _invented(run: LoadRun, records: Sequence[SessionRecord]) -> dict[str, Any]:
    """Words heard where nobody spoke, by what was to be heard there."""
    words, seconds = Counter[str](), defaultdict[str, float](float)
    for record in records:
        plan = run.plans[record.number]
        spans = plan.spans(run.clip_samples)
        where = "pauses" if plan.kind == "speech" else plan.kind
        words[where] += invented_words(spans, record.heard)
        seconds[where] += silent_s(spans, record.audio_s)
    return {
        where: {
            "words": words[where],
            "minutes": seconds[where] / 60,
            "per_minute": words[where] * 60 / seconds[where] if seconds[where] else None,
        }
        for where in sorted(seconds)
    }


def _generator(process: ProcessRecord) -> dict[str, Any]:
    """Whether the load test itself kept up. The CPU share is of one core."""
    return {
        "sessions": len(process.sessions),
        "cpu_share": process.cpu_s / process.wall_s if process.wall_s else None,
        "blocked_s": process.blocked_s,
        "late_ms": {
            name: process.lateness.percentile_ms(share) for name, share in PERCENTILES.items()
        },
    }


def _session(record: SessionRecord, plan: SessionPlan) -> dict[str, Any]:
    return {
        "number": record.number,
        "kind": plan.kind,
        "subprotocol": "msgpack" if plan.msgpack else "json",
        "outcome": record.outcome,
        "failure": record.failure,
        "sentence": record.sentence,
        "audio_s": record.audio_s,
        "speech_s": record.speech_s,
        "partials": record.partials,
        "finals": len(record.heard),
        "retractions": record.retractions,
        "missing_finals": record.missing_finals,
        "latency": {
            metric: distribution([value for _, value in pairs])
            for metric, pairs in record.samples.items()
        },
    }
