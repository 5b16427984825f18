import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from clients.load_capacity import Limits
from clients.load_clips import ClipStore, shipped_clips
from clients.load_plan import LoadShape
from clients.load_run import LoadSettings, LoadTest, command_line, document_of
from clients.load_session import Target
from clients.load_view import LoadView
from clients.word_errors import count_word_errors
from stream_server.protocol import Start
from tests.support.live_server import LiveServer, live_server

SHAPE = LoadShape(sessions=2, seconds=60.0, warm_up_s=20.0)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(max_sessions=5) as running:
        yield running


def load_test(server: LiveServer, folder: Path, shape: LoadShape, out: io.StringIO) -> LoadTest:
    clips = shipped_clips()
    settings = LoadSettings(
        shape=shape,
        target=Target(server.url, Start(), speed=100.0),
        per_process=100,
        decode_unloaded=True,
    )
    store = ClipStore.prepare(clips, folder / "clips.pcm")
    return LoadTest(settings, clips, store, count_word_errors, LoadView(out))


def test_a_load_is_planned_decoded_without_load_run_and_measured(
    server: LiveServer, tmp_path: Path
) -> None:
    out = io.StringIO()
    test = load_test(server, tmp_path, SHAPE, out)
    test.greet()
    level = test.run_level(2)
    assert (test.model, test.levels) == ("memory", [level])
    assert level["outcomes"] == {"done": 2}
    assert level["retractions"] == 0
    assert level["latency"]["final_s"]["count"] > 0
    errors = level["word_errors"]
    assert errors["clips"] > 0
    # The engine of the tests hears a word in every 200 ms, live or not, and says no real ones.
    assert errors["live_to_transcript"]["rate"] > 0.9
    assert errors["live_to_unloaded"]["words"] > 9
    assert "Decoding 1 clip without load ..." in out.getvalue()
    test.run_level(2)
    assert out.getvalue().count("Decoding") == 1


def test_the_capacity_is_where_sessions_begin_to_be_refused(
    server: LiveServer, tmp_path: Path
) -> None:
    out = io.StringIO()
    shape = LoadShape(sessions=3, seconds=40.0, duty=1.0)
    test = load_test(server, tmp_path, shape, out)
    # Generous limits: how fast this machine is today must not decide.
    assert test.find_capacity(Limits(p95_final_s=60.0, max_age_s=60.0), most=99) == 5
    tried = [(level["sessions"], level["outcomes"].get("refused", 0)) for level in test.levels]
    assert tried == [(3, 0), (6, 1), (4, 0), (5, 0)]
    assert test.levels[1]["objections"] == ["1 of the sessions refused"]
    told = out.getvalue()
    assert "\n3 sessions: final p95 " in told
    assert "does not hold: 1 of the sessions refused\n" in told


def test_the_document_holds_everything_and_is_json(server: LiveServer, tmp_path: Path) -> None:
    test = load_test(server, tmp_path, SHAPE, io.StringIO())
    began = datetime(2026, 11, 21, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    limits = Limits(p95_final_s=0.5, max_age_s=2.0)
    document = document_of(test, {"sessions": 2}, {"count": 1}, limits, 7, began)
    assert json.loads(json.dumps(document)) == document
    assert document["command"] == "starling loadtest --sessions 2"
    assert document["environment"]["began"] == "2026-11-21T12:00:00+00:00"
    assert document["limits"] == {"p95_final_s": 0.5, "max_age_s": 2.0}
    assert document["capacity"] == 7
    assert document_of(test, {}, {}, None, None, began)["limits"] is None


def test_the_command_can_be_given_again() -> None:
    settings = {
        "sessions": 64,
        "max_age_s": 2.0,
        "find_capacity": True,
        "msgpack": False,
        "language": None,
        "languages": ["en", "de"],
        "prompt": "it's",
    }
    assert command_line(settings) == (
        "starling loadtest --sessions 64 --max-age-s 2.0 --find-capacity "
        "--languages en,de --prompt 'it'\"'\"'s'"
    )
