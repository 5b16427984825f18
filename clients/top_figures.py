"""What two readings of a server's `/metrics` say about the time between them.

Pure: text and clock readings in, figures out. The names are docs/metrics.md's.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

PERCENTILES: Final = (0.5, 0.95, 0.99)

Labels = frozenset[tuple[str, str]]


class ScrapeError(ValueError):
    """What was read is not a Starling server's metrics; the message says what it was."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """One reading: every sample's value by name and labels, `at` seconds of the reader's clock."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]]

    def value(self, name: str, **labels: str) -> float:
        """One sample; 0 where there is none."""
        return self.samples.get(name, {}).get(frozenset(labels.items()), 0.0)

    def labelled(self, name: str, label: str) -> Iterator[tuple[str, float]]:
        """The samples of a name by the value of their label, in the server's order."""
        for labels, value in self.samples.get(name, {}).items():
            yield dict(labels)[label], value


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of what fell into a histogram, in seconds: as exact as its buckets.

    `values_s` go with PERCENTILES; one that lies above the last bound is infinite. None where
    nothing was observed.
    """

    count: int
    values_s: tuple[float, ...] | None
    last_bound_s: float


@dataclass(frozen=True, slots=True)
class StepFigures:
    """Steps of one kind: how many a second, with how many rows, how long, how much of the time."""

    kind: str
    per_s: float
    rows: float | None
    step_ms: float | None
    share: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that is shown. Rates are per second between two readings."""

    build: Mapping[str, str]
    sessions: Mapping[str, int]
    session_limit: int
    admitted_per_s: float
    refused: Mapping[str, int]  # between the readings, as are errors
    errors: Mapping[str, int]
    utterances: int
    audio_s_per_s: float
    speech_share: float | None
    steps: tuple[StepFigures, ...]
    tokens_per_s: float
    acceptance: float | None
    partial_interval_s: float
    rung: int
    final_latency: Percentiles
    partial_lag: Percentiles
    queue_wait: Mapping[str, Percentiles]
    loop_lag: Percentiles
    loop_lag_max_s: float
    vad_call_ms: float | None
    vad_frames_per_s: float
    outbox_max: int
    cpu_cores: float
    memory_bytes: float
    device_memory_bytes: Mapping[str, float] = field(default_factory=dict)


def read_scrape(text: str, at: float) -> Scrape:
    """Raises ScrapeError."""
    samples: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = frozenset(sample.labels.items())
                samples.setdefault(sample.name, {})[labels] = sample.value
    except ValueError as exc:
        raise ScrapeError(f"expected metrics in Prometheus' text format, got {exc}") from exc
    if "starling_sessions" not in samples:
        raise ScrapeError("expected starling_… metrics, got none: this is not a Starling server")
    return Scrape(at, samples)


def figures_between(before: Scrape, after: Scrape) -> Figures:
    """Figures of the time between two readings of one server.

    A server that was started anew in between counts from nothing again: what it counted until
    `after` is then taken for the whole time.
    """
    if _restarted(before, after):
        before = Scrape(before.at, {})
    change = _Change(before, after)
    (build,) = after.samples.get("starling_build_info", {frozenset[tuple[str, str]](): 1.0})
    return Figures(
        build=dict(build),
        sessions={k: round(v) for k, v in after.labelled("starling_sessions", "state")},
        session_limit=round(after.value("starling_session_limit")),
        admitted_per_s=change.rate("starling_admissions_total"),
        refused=change.counts("starling_refusals_total", "reason"),
        errors=change.counts("starling_errors_total", "code"),
        utterances=round(after.value("starling_utterances")),
        audio_s_per_s=change.rate("starling_audio_seconds_total"),
        speech_share=change.ratio("starling_speech_seconds_total", "starling_audio_seconds_total"),
        steps=tuple(
            _step(change, kind) for kind, _ in after.labelled("starling_step_rows_total", "kind")
        ),
        tokens_per_s=change.rate("starling_tokens_total"),
        acceptance=change.ratio("starling_accepted_tokens_total", "starling_drafted_tokens_total"),
        partial_interval_s=after.value("starling_partial_interval_seconds"),
        rung=round(after.value("starling_overload_rung")),
        final_latency=change.percentiles("starling_final_latency_seconds"),
        partial_lag=change.percentiles("starling_partial_lag_seconds"),
        queue_wait={
            kind: change.percentiles("starling_queue_wait_seconds", kind=kind)
            for kind, _ in after.labelled("starling_queue_wait_seconds_count", "kind")
        },
        loop_lag=change.percentiles("starling_event_loop_lag_seconds"),
        loop_lag_max_s=after.value("starling_event_loop_lag_max_seconds"),
        vad_call_ms=_ms(
            change.ratio("starling_vad_call_seconds_sum", "starling_vad_call_seconds_count")
        ),
        vad_frames_per_s=change.rate("starling_vad_frames_total"),
        outbox_max=round(after.value("starling_outbox_messages_max")),
        cpu_cores=change.rate("process_cpu_seconds_total"),
        memory_bytes=after.value("process_resident_memory_bytes"),
        device_memory_bytes=dict(after.labelled("starling_device_memory_bytes", "state")),
    )


@dataclass(frozen=True, slots=True)
class _Change:
    """What grew between two readings."""

    before: Scrape
    after: Scrape

    def of(self, name: str, **labels: str) -> float:
        return self.after.value(name, **labels) - self.before.value(name, **labels)

    def rate(self, name: str, **labels: str) -> float:
        passed_s = self.after.at - self.before.at
        return self.of(name, **labels) / passed_s if passed_s > 0 else 0.0

    def ratio(self, name: str, to: str, **labels: str) -> float | None:
        whole = self.of(to, **labels)
        return self.of(name, **labels) / whole if whole else None

    def counts(self, name: str, label: str) -> dict[str, int]:
        """Those that grew."""
        grown = {
            value: round(self.of(name, **{label: value}))
            for value, _ in self.after.labelled(name, label)
        }
        return {value: count for value, count in grown.items() if count}

    def percentiles(self, name: str, **labels: str) -> Percentiles:
        wanted = frozenset(labels.items())
        buckets = sorted(
            (float(dict(key)["le"]), self.of(f"{name}_bucket", **dict(key)))
            for key in self.after.samples.get(f"{name}_bucket", {})
            if wanted <= key
        )
        count = round(buckets[-1][1]) if buckets else 0
        bounds = [bound for bound, _ in buckets if bound < inf]
        return Percentiles(
            count,
            tuple(quantile(buckets, share) for share in PERCENTILES) if count else None,
            bounds[-1] if bounds else 0.0,
        )


def quantile(buckets: Iterable[tuple[float, float]], share: float) -> float:
    """Of cumulative buckets (upper bound, count), as evenly spread within each.

    Infinite where it lies above the last finite bound. As Prometheus' histogram_quantile,
    which says the last bound there instead.
    """
    pairs = list(buckets)
    rank = share * pairs[-1][1]
    below, counted = 0.0, 0.0
    for bound, count in pairs:
        if count >= rank and count > counted:
            return below + (bound - below) * (rank - counted) / (count - counted)
        below, counted = bound, count
    raise ValueError("a quantile of nothing")


def _restarted(before: Scrape, after: Scrape) -> bool:
    start, ticks = "process_start_time_seconds", "starling_event_loop_lag_seconds_count"
    # The first is there on Linux only; the second grows for as long as a server lives.
    return after.value(start) != before.value(start) or after.value(ticks) < before.value(ticks)


def _step(change: _Change, kind: str) -> StepFigures:
    count, seconds = "starling_step_seconds_count", "starling_step_seconds_sum"
    return StepFigures(
        kind,
        change.rate(count, kind=kind),
        change.ratio("starling_step_rows_total", count, kind=kind),
        _ms(change.ratio(seconds, count, kind=kind)),
        change.rate(seconds, kind=kind),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds
