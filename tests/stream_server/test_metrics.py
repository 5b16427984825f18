import json
import re
import typing
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from engine.metrics import EngineMetrics, StepMetrics
from engine.scheduling.steps import Step
from stream_server.loop_lag import LoopLag
from stream_server.metrics import STEP_KINDS, Exporter, Snapshot
from stream_server.totals import Totals
from tests.support.live_server import LiveServer, live_server

DOCS = Path(__file__).parents[2] / "docs"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Desk:
    """Everything that is exported, to be counted up by a test."""

    def __init__(self, device: str = "cpu") -> None:
        self.engine = EngineMetrics(device=device, dtype="float32")
        self.vad = StepMetrics()
        self.totals = Totals()
        self.lag = LoopLag()
        self.sessions = Snapshot({"new": 1, "open": 2, "ending": 3}, 64, 7)
        self.exporter = Exporter(
            "tiny", self.engine, self.vad, self.totals, self.lag, lambda: self.sessions
        )

    def scrape(self) -> Samples:
        body, _ = self.exporter.render("")
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.scrape()[f"starling_{name}", frozenset(labels.items())]


def test_steps_are_exported_by_kind_with_rows_and_time() -> None:
    desk = Desk()
    desk.engine.record_step("DecodeStep", 3, 0.015)
    desk.engine.record_step("DecodeStep", 4, 0.03)
    assert desk.value("step_rows_total", kind="decode") == 7
    assert desk.value("step_seconds_count", kind="decode") == 2
    assert desk.value("step_seconds_sum", kind="decode") == pytest.approx(0.045)
    assert desk.value("step_seconds_bucket", kind="decode", le="0.02") == 1
    assert desk.value("step_seconds_bucket", kind="decode", le="+Inf") == 2
    assert desk.value("step_seconds_count", kind="encode") == 0


def test_every_kind_of_step_is_there_from_the_start() -> None:
    kinds = {kind.__name__ for kind in typing.get_args(Step)}
    assert {f"{kind.title()}Step" for kind in STEP_KINDS} == kinds


def test_what_the_engine_counted_is_what_is_exported() -> None:
    desk = Desk()
    engine = desk.engine
    engine.utterances, engine.rung, engine.partial_interval_s = 5, 1, 0.8
    engine.tokens, engine.drafted, engine.accepted = 10, 8, 6
    engine.partials, engine.finals, engine.retries, engine.failures = 4, 3, 2, 1
    engine.record_wait("early", 0.25)
    for name, value in (
        ("utterances", 5),
        ("overload_rung", 1),
        ("partial_interval_seconds", 0.8),
        ("tokens_total", 10),
        ("drafted_tokens_total", 8),
        ("accepted_tokens_total", 6),
        ("partial_hypotheses_total", 4),
        ("segments_total", 3),
        ("retries_total", 2),
        ("failed_utterances_total", 1),
    ):
        assert desk.value(name) == value, name
    assert desk.value("queue_wait_seconds_sum", kind="early") == 0.25
    assert desk.value("queue_wait_seconds_count", kind="final") == 0


def test_what_the_server_counted_is_what_is_exported() -> None:
    desk = Desk()
    totals = desk.totals
    totals.admitted, totals.received_bytes, totals.sent_bytes = 9, 1000, 2000
    totals.audio, totals.speech = type(totals.audio)(32_000), type(totals.audio)(8_000)
    totals.refused["capacity"] += 2
    totals.errors["bad_message"] += 3
    totals.messages["final"] += 4
    totals.final_latency.observe(0.55)
    totals.partial_lag.observe(0.5)
    desk.vad.record(64, 0.003)
    desk.lag.observe(0.04, 0.0)
    for name, labels, value in (
        ("sessions", {"state": "new"}, 1),
        ("sessions", {"state": "open"}, 2),
        ("sessions", {"state": "ending"}, 3),
        ("session_limit", {}, 64),
        ("outbox_messages_max", {}, 7),
        ("admissions_total", {}, 9),
        ("refusals_total", {"reason": "capacity"}, 2),
        ("refusals_total", {"reason": "unauthorized"}, 0),
        ("audio_seconds_total", {}, 2),
        ("speech_seconds_total", {}, 0.5),
        ("received_bytes_total", {}, 1000),
        ("sent_bytes_total", {}, 2000),
        ("errors_total", {"code": "bad_message"}, 3),
        ("messages_sent_total", {"type": "final"}, 4),
        ("final_latency_seconds_bucket", {"le": "0.5"}, 0),
        ("final_latency_seconds_bucket", {"le": "0.6"}, 1),
        ("partial_lag_seconds_sum", {}, 0.5),
        ("vad_frames_total", {}, 64),
        ("vad_call_seconds_count", {}, 1),
        ("event_loop_lag_seconds_bucket", {"le": "0.05"}, 1),
        ("event_loop_lag_max_seconds", {}, 0.04),
    ):
        assert desk.value(name, **labels) == value, name


def test_what_runs_is_said_with_the_version() -> None:
    (labels,) = (dict(labels) for name, labels in Desk().scrape() if name == "starling_build_info")
    assert labels.pop("version")
    assert labels == {"model": "tiny", "device": "cpu", "dtype": "float32"}


def test_the_process_is_measured_too() -> None:
    scraped = Desk().scrape()
    assert scraped["process_resident_memory_bytes", frozenset()] > 1e6
    assert scraped["process_cpu_seconds_total", frozenset()] > 0


@pytest.mark.parametrize(
    ("device", "states"), [("cpu", set[str]()), ("cuda", {"allocated", "reserved"})]
)
def test_memory_of_the_device_is_told_where_there_is_one(device: str, states: set[str]) -> None:
    """torch answers for a device that this machine has not, with nothing."""
    told = {
        dict(labels)["state"]
        for name, labels in Desk(device).scrape()
        if name == "starling_device_memory_bytes"
    }
    assert told == states


def test_two_applications_export_apart() -> None:
    one, other = Desk(), Desk()
    one.totals.admitted = 5
    assert (one.value("admissions_total"), other.value("admissions_total")) == (5, 0)


def test_the_format_is_the_one_that_is_asked_for() -> None:
    exporter = Desk().exporter
    body, media_type = exporter.render("application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    families = openmetrics_families(body.decode())  # type: ignore[no-untyped-call]
    assert len(list(families)) > 20
    assert exporter.render("")[1].startswith("text/plain; version=0.0.4")


def exported_names(server: LiveServer) -> set[str]:
    """Every metric of ours, under the name that documents give it."""
    names = set()
    with urllib.request.urlopen(server.http("/metrics")) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    for family in families:
        suffix = "_total" if family.type == "counter" else ""
        if family.name.startswith("starling_"):
            names.add(family.name + suffix)
    return names


def named_in(text: str, exported: set[str]) -> set[str]:
    """Every metric of ours that a text speaks of; a part of a histogram is the histogram."""
    names = set()
    for name in re.findall(r"starling_[a-z_]+(?<!_)", text):
        whole = re.sub(r"_(bucket|sum|count)$", "", name)
        names.add(whole if whole in exported else name)
    return names


@pytest.mark.parametrize("document", ["metrics.md", "grafana.json"])
def test_every_metric_is_in_the_documents_and_nothing_else_is(document: str) -> None:
    with live_server() as server:
        exported = exported_names(server)
    assert len(exported) > 30
    assert named_in((DOCS / document).read_text(), exported) == exported


def test_the_dashboard_asks_the_data_source_that_is_chosen() -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    variables = {it["name"]: it for it in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["targets"], panel["title"]
        for source in (panel, *panel["targets"]):
            assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    cells = [
        (at["x"] + right, at["y"] + down)
        for at in (panel["gridPos"] for panel in dashboard["panels"])
        for right in range(at["w"])
        for down in range(at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_queries_of_the_dashboard_are_rates_of_what_grows_and_only_of_that() -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
    assert len(queries) > 30
    with live_server() as server, urllib.request.urlopen(server.http("/metrics")) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    growing = {
        sample.name
        for family in families
        if family.type in ("counter", "histogram")
        for sample in family.samples
    }
    for query in queries:
        assert query.count("(") == query.count(")"), query
        for function, name, selector in re.findall(
            r"(\w+\()?\b((?:starling|process)_\w+)(\{[^}]*\})?", query
        ):
            assert (function in ("rate(", "increase(")) == (name in growing), query
            assert selector.startswith('{instance=~"$instance"'), query
        if "histogram_quantile" in query:
            assert re.search(r"by \(le[,)]", query), query
            assert "_bucket{" in query, query
