import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.load_clips import BACKGROUND_SAMPLES, ClipStore, shipped_clips
from clients.load_plan import LoadShape, plan_load
from clients.load_processes import (
    LoadProcessError,
    Progress,
    Share,
    generate,
    run_processes,
    shares,
)
from clients.load_session import Target
from stream_server.protocol import Start
from tests.support.live_server import LiveServer, live_server

SPEED = 20.0
SHAPE = LoadShape(sessions=5, seconds=6.0, duty=1.0, noise_share=0.2)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server() as running:
        yield running


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return ClipStore.prepare(shipped_clips(), tmp_path_factory.mktemp("clips") / "clips.pcm")


def work_of(url: str, store: ClipStore, per_process: int) -> list[Share]:
    plans = plan_load(SHAPE, store.clip_samples, BACKGROUND_SAMPLES)
    return shares(plans, per_process, store, Target(url, Start(), speed=SPEED))


@pytest.mark.parametrize(
    ("per_process", "numbers"),
    [(5, [[0, 1, 2, 3, 4]]), (4, [[0, 2, 4], [1, 3]]), (1, [[0], [1], [2], [3], [4]])],
)
def test_sessions_are_dealt_to_as_few_processes_as_carry_them(
    store: ClipStore, per_process: int, numbers: list[list[int]]
) -> None:
    work = work_of("ws://host", store, per_process)
    assert [[plan.number for plan in share.plans] for share in work] == numbers


def test_a_process_runs_its_sessions_and_tells_every_sample_once(
    server: LiveServer, store: ClipStore
) -> None:
    (share,) = work_of(server.url, store, 5)
    told: list[Progress] = []
    record = asyncio.run(generate(share, time.monotonic(), told.append, report_every_s=0.02))
    assert len(told) > 2
    assert [session.number for session in record.sessions] == [0, 1, 2, 3, 4]
    assert {session.outcome for session in record.sessions} == {"done"}
    for metric in ("final_beyond_endpoint_s", "partial_age_s"):
        values = [value for session in record.sessions for _, value in session.samples[metric]]
        assert sorted(v for it in told for v in getattr(it, metric)) == sorted(values)
        assert values
    assert (told[-1].num_open, told[-1].num_ended, told[-1].num_failed) == (0, 5, 0)
    assert told[-1].num_finals == sum(len(session.heard) for session in record.sessions) > 0
    assert record.cpu_s > 0
    assert record.wall_s >= SHAPE.seconds / SPEED
    assert sum(record.lateness.counts) > 5 * 6 / 0.1


def test_several_processes_load_one_server_together(server: LiveServer, store: ClipStore) -> None:
    work, heard_of = work_of(server.url, store, 3), set[int]()
    records = run_processes(work, lambda process, progress: heard_of.add(process))
    numbers = [[session.number for session in record.sessions] for record in records]
    assert numbers == [[0, 2, 4], [1, 3]]
    assert {session.outcome for it in records for session in it.sessions} == {"done"}
    assert heard_of == {0, 1}


def test_a_process_that_dies_is_told_and_the_others_are_ended(
    server: LiveServer, store: ClipStore
) -> None:
    healthy, doomed = work_of(server.url, store, 3)
    gone = ClipStore(Path("/no/such/clips.pcm"), store.clip_samples)
    with pytest.raises(LoadProcessError, match="ended with status 1"):
        run_processes(
            [healthy, Share(doomed.plans, gone, doomed.target)], lambda process, progress: None
        )
