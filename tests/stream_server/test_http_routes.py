import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from stream_server.access import AccessPolicy
from stream_server.http_routes import WEB_DEMO, Condition, http_routes
from tests.support.memory_engine import MODEL


def client(condition: Condition | None = None, *keys: str) -> TestClient:
    policy = AccessPolicy(keys, [])
    routes = http_routes(condition or Condition(), lambda: MODEL, policy)
    return TestClient(Starlette(routes=routes))


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


def test_a_plain_request_for_the_stream_is_told_to_upgrade() -> None:
    answer = client().get("/v1/stream")
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"


def test_the_page_and_its_files_come_with_a_strict_policy() -> None:
    for path, kind in (("/", "text/html"), ("/style.css", "text/css")):
        answer = client().get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_has_nothing_inline_that_its_policy_would_refuse() -> None:
    page = (WEB_DEMO / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


@pytest.mark.parametrize("path", ["/nothing", "/../pyproject.toml", "/%2e%2e/pyproject.toml"])
def test_nothing_else_is_served(path: str) -> None:
    assert client().get(path).status_code == 404
