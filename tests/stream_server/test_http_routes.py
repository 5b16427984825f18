import mimetypes
import re
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from engine.metrics import EngineMetrics, StepMetrics
from stream_server.access import AccessPolicy
from stream_server.http_routes import SAMPLE, WEB_DEMO, Condition, Refusal, http_routes
from stream_server.loop_lag import LoopLag
from stream_server.metrics import Exporter, Snapshot
from stream_server.totals import Totals
from tests.support.memory_engine import MODEL


def refuse_nobody(headers: Headers) -> Response | None:
    return None


def client(
    condition: Condition | None = None,
    *keys: str,
    refusal: Refusal = refuse_nobody,
    exporter: Exporter | None = None,
) -> TestClient:
    policy = AccessPolicy(keys, [])
    routes = http_routes(condition or Condition(), lambda: MODEL, policy, refusal, exporter)
    return TestClient(Starlette(routes=routes))


@pytest.fixture
def a_system_that_knows_no_media_types() -> Iterator[None]:
    """As on an installation where something has registered its own."""
    for suffix in (".html", ".css", ".js", ".svg", ".flac"):
        mimetypes.add_type("text/plain", suffix)
    yield
    mimetypes.init()


@pytest.mark.parametrize(
    ("condition", "alive", "ready"),
    [
        (Condition(), 200, 200),
        (Condition(draining=True), 200, 503),
        (Condition(failure=RuntimeError("x")), 500, 503),
    ],
)
def test_health_and_readiness_follow_the_condition(
    condition: Condition, alive: int, ready: int
) -> None:
    assert client(condition).get("/healthz").status_code == alive
    assert client(condition).get("/readyz").status_code == ready


def test_metrics_are_shown_in_the_format_that_is_asked_for() -> None:
    totals = Totals(admitted=3)
    exporter = Exporter(
        "m", EngineMetrics(), StepMetrics(), totals, LoopLag(), lambda: Snapshot({}, 1, 0)
    )
    answer = client(None, "key", exporter=exporter).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "\nstarling_admissions_total 3.0\n" in answer.text
    openmetrics = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = client(exporter=exporter).get("/metrics", headers=openmetrics)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_a_server_without_metrics_says_so() -> None:
    answer = client().get("/metrics")
    assert (answer.status_code, answer.text) == (404, "this server shows no metrics\n")


def test_the_model_is_listed_with_what_it_can_do() -> None:
    (model,) = client().get("/v1/models").json()["data"]
    assert model["id"] == "memory"
    assert model["languages"] == ["de", "en"]
    assert model["tasks"] == ["transcribe", "translate"]


def test_the_model_is_listed_for_those_with_a_key() -> None:
    closed = client(None, "key")
    assert closed.get("/v1/models").status_code == 401
    shown = closed.get("/v1/models", headers={"authorization": "Bearer key"})
    assert shown.status_code == 200
    assert closed.get("/healthz").status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_plain_request_for_the_stream_is_told_to_upgrade(method: str) -> None:
    answer = client().request(method, "/v1/stream")
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_plain_request_for_the_stream_is_told_why_an_upgrade_would_be_refused(
    method: str,
) -> None:
    def refuse_teapots(headers: Headers) -> Response | None:
        return PlainTextResponse("short and stout\n", 418) if "x-teapot" in headers else None

    kitchen = client(refusal=refuse_teapots)
    assert kitchen.request(method, "/v1/stream", headers={"x-teapot": "1"}).status_code == 418
    assert kitchen.request(method, "/v1/stream").status_code == 426


FILES = [
    ("/", "text/html; charset=utf-8"),
    ("/style.css", "text/css; charset=utf-8"),
    ("/app.js", "text/javascript; charset=utf-8"),
    ("/starling.svg", "image/svg+xml"),
    ("/sample.flac", "audio/flac"),
]


@pytest.mark.parametrize(("path", "kind"), FILES)
@pytest.mark.usefixtures("a_system_that_knows_no_media_types")
def test_the_page_and_its_files_come_with_their_own_type_and_a_strict_policy(
    path: str, kind: str
) -> None:
    answer = client().get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    policy = answer.headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert {"script-src 'self'", "media-src 'self' blob:"} <= set(policy)
    assert "unsafe" not in " ".join(policy)
    assert answer.headers["permissions-policy"] == "microphone=(self)"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/style.css", "/sample.flac"])
def test_the_page_is_asked_for_each_time_and_sent_only_when_it_has_changed(path: str) -> None:
    first = client().get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = client().get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"
    changed = client().get(path, headers={"if-none-match": '"another"'})
    assert changed.content == first.content


def test_the_sample_is_the_clip_of_the_package_in_whole_or_in_part() -> None:
    clip = SAMPLE.read_bytes()
    assert client().get("/sample.flac").content == clip
    start = client().get("/sample.flac", headers={"range": "bytes=0-1"})
    assert (start.status_code, start.content) == (206, clip[:2])
    assert start.headers["content-range"] == f"bytes 0-1/{len(clip)}"
    assert start.headers["content-type"] == "audio/flac"
    end = client().get("/sample.flac", headers={"range": f"bytes={len(clip) - 9}-"})
    assert (end.status_code, end.content) == (206, clip[-9:])


def test_the_page_has_nothing_inline_that_its_policy_would_refuse() -> None:
    page = (WEB_DEMO / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


@pytest.mark.parametrize("path", ["/nothing", "/../pyproject.toml", "/%2e%2e/pyproject.toml"])
def test_nothing_else_is_served(path: str) -> None:
    assert client().get(path).status_code == 404
