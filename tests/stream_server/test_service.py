import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient, WebSocketDenialResponse

from stream_server.config import ServerConfig
from stream_server.server import build_app
from tests.support.memory_engine import MemoryEngine
from tests.support.scripted_detector import ScriptedDetector


@contextmanager
def served(**settings: Any) -> Iterator[tuple[Starlette, TestClient]]:
    """The application with fakes, and a client of it."""
    engine, detector = MemoryEngine(), ScriptedDetector()
    engine.start()
    detector.start()
    try:
        app = build_app(ServerConfig(port=0, **settings), engine, detector)
        app.state.engine = engine
        with TestClient(app, "http://here.example") as client:
            yield app, client
    finally:
        detector.stop()
        engine.stop()


def test_the_application_runs_under_any_asgi_server() -> None:
    with served() as (_, client), client.websocket_connect("/v1/stream") as stream:
        stream.send_json({"type": "start"})
        assert stream.receive_json()["type"] == "ready"
        stream.send_json({"type": "stop"})
        assert stream.receive_json()["type"] == "done"


KEY = {"authorization": "Bearer right"}


def fill(app: Starlette, client: TestClient) -> None:
    app.state.full.enter_context(client.websocket_connect("/v1/stream", headers=KEY))


def drain(app: Starlette, client: TestClient) -> None:
    assert client.portal is not None
    client.portal.call(app.state.service.drain, 0)


def fail(app: Starlette, client: TestClient) -> None:
    assert client.portal is not None
    client.portal.call(app.state.service.fail, RuntimeError("lost the device"))


def leave(app: Starlette, client: TestClient) -> None:
    """Nothing happens to the server."""


REFUSALS: list[tuple[Callable[[Starlette, TestClient], None], dict[str, str], int, str]] = [
    (leave, {}, 401, "a valid API key is needed"),
    (leave, {"authorization": "Bearer wrong"}, 401, "a valid API key is needed"),
    (leave, KEY | {"origin": "http://there.example"}, 403, "origin"),
    (fill, KEY, 503, "takes no more sessions now"),
    (drain, KEY, 503, "shutting down"),
    (fail, KEY, 503, "shutting down"),
]


@pytest.mark.parametrize(("happening", "headers", "status", "sentence"), REFUSALS)
def test_a_plain_request_is_answered_as_an_upgrade_would_be_refused(
    happening: Callable[[Starlette, TestClient], None],
    headers: dict[str, str],
    status: int,
    sentence: str,
) -> None:
    with served(api_key=["right"], max_sessions=1) as (app, client), ExitStack() as app.state.full:
        happening(app, client)
        plain = client.get("/v1/stream", headers=headers)
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            client.websocket_connect("/v1/stream", headers=headers),
        ):
            pass
        refused = caught.value
        assert plain.status_code == refused.status_code == status
        assert plain.text == refused.text
        assert sentence in plain.text
        for name in ("retry-after", "www-authenticate"):
            assert plain.headers.get(name) == refused.headers.get(name)
        assert ("retry-after" in plain.headers) == (status == 503)


def metric(client: TestClient, name: str, **labels: str) -> float:
    """The value of one sample of /metrics."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    (value,) = (
        sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )
    return float(value)


@pytest.mark.parametrize(
    ("happening", "headers", "reason"),
    [
        (leave, {}, "unauthorized"),
        (leave, KEY | {"origin": "http://there.example"}, "forbidden_origin"),
        (fill, KEY, "capacity"),
        (drain, KEY, "draining"),
    ],
)
def test_who_is_refused_is_counted_by_the_reason(
    happening: Callable[[Starlette, TestClient], None], headers: dict[str, str], reason: str
) -> None:
    with served(api_key=["right"], max_sessions=1) as (app, client), ExitStack() as app.state.full:
        happening(app, client)
        client.get("/v1/stream", headers=headers)  # asks, and is not counted
        with (
            pytest.raises(WebSocketDenialResponse),
            client.websocket_connect("/v1/stream", headers=headers),
        ):
            pass
        counted = app.state.service.totals.refused
        assert {why for why, count in counted.items() if count} == {reason}
        assert metric(client, "starling_refusals_total", reason=reason) == 1


def test_sessions_are_counted_as_they_are_admitted_and_as_they_are() -> None:
    with served(max_sessions=9) as (_, client):
        client.get("/v1/stream")  # asks, and is not admitted
        with client.websocket_connect("/v1/stream") as stream:
            assert metric(client, "starling_sessions", state="new") == 1
            stream.send_json({"type": "start"})
            stream.receive_json()
            assert metric(client, "starling_sessions", state="open") == 1
            assert metric(client, "starling_sessions", state="new") == 0
            stream.send_json({"type": "stop"})
            assert stream.receive_json()["type"] == "done"
        assert metric(client, "starling_admissions_total") == 1
        assert metric(client, "starling_session_limit") == 9
        assert metric(client, "starling_messages_sent_total", type="done") == 1


def test_what_speech_costs_limits_how_many_are_admitted() -> None:
    with served(max_sessions=9) as (app, client):
        engine: MemoryEngine = app.state.engine
        assert metric(client, "starling_session_limit") == 9
        engine.metrics.s_per_speech_s = 4.0  # of a device: nobody but the first
        assert metric(client, "starling_session_limit") == 2
        with (
            client.websocket_connect("/v1/stream"),
            client.websocket_connect("/v1/stream") as second,
        ):
            assert client.get("/v1/stream").status_code == 503
            second.send_json({"type": "start"})
            assert second.receive_json()["type"] == "ready"  # who is in stays in
            engine.metrics.s_per_speech_s = 0.01
            assert client.get("/v1/stream").status_code == 426


def test_metrics_are_open_like_health_and_can_be_switched_off() -> None:
    with served(api_key=["right"]) as (_, client):
        assert client.get("/metrics").status_code == 200
    with served(metrics=False) as (_, client):
        assert client.get("/metrics").status_code == 404
        assert client.get("/healthz").status_code == 200


def test_the_lag_of_the_loop_is_watched_while_the_application_lives() -> None:
    with served() as (_, client):
        while not metric(client, "starling_event_loop_lag_seconds_count"):
            time.sleep(0.01)


def test_a_plain_request_takes_no_place() -> None:
    with served(max_sessions=1) as (_, client):
        for _ in range(3):
            assert client.get("/v1/stream").status_code == 426
        with client.websocket_connect("/v1/stream"):
            assert client.get("/v1/stream").status_code == 503
