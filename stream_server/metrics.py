"""What the engine and the server counted, as Prometheus reads it.

Decides the names, labels and help of the metrics; docs/metrics.md lists them. Nothing is counted
here: at each scrape a collector reads the plain numbers of `engine.metrics`, `totals` and
`loop_lag`. One registry per application, no global state.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import torch
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from engine.audio.units import seconds_from_samples
from engine.metrics import EngineMetrics, Histogram, StepMetrics
from stream_server.loop_lag import LoopLag
from stream_server.totals import SessionState, Totals

DISTRIBUTION: Final = "starling-asr"
STEP_KINDS: Final = ("encode", "extend", "prefill", "verify", "decode", "align")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How the sessions are at this moment."""

    sessions: Mapping[SessionState, int]
    session_limit: int
    outbox_max: int  # messages that wait for the client who reads most slowly


class Exporter:
    """The body of `/metrics`. Touched only by the event loop's thread.

    `vad` are the detector's calls, `snapshot` says how the sessions are when it is called.
    """

    def __init__(
        self,
        model: str,
        engine: EngineMetrics,
        vad: StepMetrics,
        totals: Totals,
        lag: LoopLag,
        snapshot: Callable[[], Snapshot],
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(model, engine))
        self._registry.register(_ServerCollector(totals, vad, lag, snapshot))
        ProcessCollector(registry=self._registry)  # memory, CPU, files; on Linux only

    def render(self, accept: str) -> tuple[bytes, str]:
        """Everything, in the format that the Accept header asks for, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type


class _EngineCollector(Collector):
    def __init__(self, model: str, engine: EngineMetrics) -> None:
        self._engine = engine
        self._build = {
            "version": _version(),
            "model": model,
            "device": engine.device,
            "dtype": engine.dtype,
        }

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        yield InfoMetricFamily("starling_build", "What runs, and on what.", self._build)
        yield _gauge("utterances", "Utterances the engine has not finished.", engine.utterances)
        yield _gauge("slots", "Utterances that can be at work at once.", engine.slots)
        yield from _steps(engine)
        yield _histograms(
            "queue_wait_seconds", "From wanting a job to its encode step.", "kind", engine.waits
        )
        for name, what, value in (
            ("tokens", "Tokens of hypotheses; forced prefixes are not counted.", engine.tokens),
            ("drafted_tokens", "Tokens offered for verification.", engine.drafted),
            ("accepted_tokens", "Drafted tokens that decoding would have chosen.", engine.accepted),
            ("partial_hypotheses", "Partials that the engine published.", engine.partials),
            ("segments", "Segments that the engine closed.", engine.finals),
            ("retries", "Hypotheses that were decoded again another way.", engine.retries),
            ("failed_utterances", "Utterances that could not be decoded.", engine.failures),
        ):
            yield _counter(name, what, value)
        yield _gauge(
            "partial_interval_seconds",
            "Widest interval between partials in force; 0 while everybody has what they asked for.",
            engine.partial_interval_s,
        )
        yield _gauge("overload_rung", "How far service is degraded; 0 is not.", engine.rung)
        yield _gauge(
            "device_seconds_per_speech_second",
            "What speech costs at the least that is promised; 0 while unknown.",
            engine.s_per_speech_s,
        )
        yield _device_memory(engine.device)


class _ServerCollector(Collector):
    def __init__(
        self, totals: Totals, vad: StepMetrics, lag: LoopLag, snapshot: Callable[[], Snapshot]
    ) -> None:
        self._totals = totals
        self._vad = vad
        self._lag = lag
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        totals, snapshot = self._totals, self._snapshot()
        sessions = GaugeMetricFamily("starling_sessions", "Sessions now.", labels=["state"])
        for state, count in snapshot.sessions.items():
            sessions.add_metric([state], count)
        yield sessions
        yield _gauge("session_limit", "Sessions at once, at most.", snapshot.session_limit)
        yield _counter("admissions", "Sessions admitted.", totals.admitted)
        yield _counters("refusals", "Connections refused.", "reason", totals.refused)
        audio, speech = map(seconds_from_samples, (totals.audio, totals.speech))
        yield _counter("audio_seconds", "Audio received.", audio)
        yield _counter("speech_seconds", "Audio given to the engine.", speech)
        yield _counter("received_bytes", "Bytes in frames received.", totals.received_bytes)
        yield _counter("sent_bytes", "Bytes in frames sent.", totals.sent_bytes)
        yield _counters("messages_sent", "Messages sent to clients.", "type", totals.messages)
        yield _counters("errors", "Errors told to clients.", "code", totals.errors)
        yield _histogram(
            "final_latency_seconds",
            "From the arrival of the last speech to its final, endpoint silence included.",
            totals.final_latency,
        )
        yield _histogram(
            "partial_lag_seconds", "Audio received beyond a partial.", totals.partial_lag
        )
        yield _gauge(
            "outbox_messages_max", "Messages waiting for the slowest reader.", snapshot.outbox_max
        )
        yield _histogram(
            "event_loop_lag_seconds", "How late the event loop is.", self._lag.histogram
        )
        yield _gauge(
            "event_loop_lag_max_seconds", "The largest lag of the last minute.", self._lag.max_s
        )
        yield _histogram("vad_call_seconds", "Calls of the speech detector.", self._vad.durations)
        yield _counter("vad_frames", "VAD frames scored.", self._vad.rows)


def _steps(engine: EngineMetrics) -> Iterator[Metric]:
    steps = {kind: StepMetrics() for kind in STEP_KINDS}
    # A copy, made in one go: the engine's thread may be adding a kind.
    for name, step in dict(engine.steps).items():
        steps[name.removesuffix("Step").lower()] = step
    durations = {kind: step.durations for kind, step in steps.items()}
    yield _histograms("step_seconds", "Steps on the device, by their kind.", "kind", durations)
    rows = {kind: step.rows for kind, step in steps.items()}
    yield _counters("step_rows", "Rows of steps, by their kind.", "kind", rows)


def _device_memory(device: str) -> Metric:
    """Of torch's allocator; on a CPU, a metric without samples."""
    family = GaugeMetricFamily(
        "starling_device_memory_bytes", "Device memory held by torch.", labels=["state"]
    )
    if device == "cuda":
        family.add_metric(["allocated"], torch.cuda.memory_allocated())
        family.add_metric(["reserved"], torch.cuda.memory_reserved())
    return family


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"starling_{name}", what, value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"starling_{name}", what, value)


def _counters(name: str, what: str, label: str, values: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(f"starling_{name}", what, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, what: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(f"starling_{name}", what, _buckets(histogram), histogram.sum)


def _histograms(name: str, what: str, label: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"starling_{name}", what, labels=[label])
    for key, histogram in histograms.items():
        family.add_metric([key], _buckets(histogram), histogram.sum)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, histogram.cumulative(), strict=True))


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"  # a checkout that was never installed
