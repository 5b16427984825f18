"""The benchmark of the server, as short as it can be; what it finds is reported, not asserted."""

import asyncio
import threading

import numpy as np
import pytest

from stream_server.loop_mailbox import LoopMailbox
from stream_server.server_bench import BenchError, ScriptedClient, Shape, measure, run_in_process
from tests.support.clips import TWO_SENTENCES, read_clip

SHORT = Shape(sessions=2, chunk_ms=20, seconds=0.2)


def test_every_part_is_measured_and_the_parts_make_up_the_whole() -> None:
    rows, facts = measure(read_clip(TWO_SENTENCES), SHORT)
    told = {row["part"]: row["us per message"] for row in rows}
    parts = ("codec asr.json.v1", "session, audio (with PCM)", "session, scores", "connection")
    whole = told["receive to mailbox"]
    assert sum(told[part] for part in (*parts, "detector")) == pytest.approx(whole)
    assert told["socket to mailbox"] - told["websocket"] == pytest.approx(whole)
    assert all(told[part] > 0 for part in (*parts[:3], "detector", "PCM", "socket to mailbox"))
    assert (facts["sessions"], facts["chunk_ms"]) == (2, 20)
    assert facts["speech_share"] > 0
    assert facts["vad_frames_per_call"] >= 1
    assert [thread.name for thread in threading.enumerate() if thread.name == "vad"] == []


def test_a_recording_shorter_than_a_message_is_refused() -> None:
    with pytest.raises(BenchError, match="at least 20 ms"):
        measure(np.zeros(319, np.float32), SHORT)


def test_clients_send_their_chunks_in_turn_each_from_a_place_of_its_own() -> None:
    heard: dict[int, list[bytes]] = {}

    async def listen(client: ScriptedClient, mailbox: LoopMailbox) -> None:
        mine = heard.setdefault(len(heard), [])
        assert "start" in (await client.receive())["text"]
        while True:
            mine.append((await client.receive())["bytes"])

    chunks = [bytes([number]) for number in range(4)]
    cost = run_in_process(chunks, Shape(sessions=2, chunk_ms=20, seconds=0.1), listen)
    assert cost.loop_us > 0
    for first, mine in ((0, heard[0]), (2, heard[1])):
        assert mine == [chunks[(first + at) % 4] for at in range(len(mine))]
        assert len(mine) > 4


def test_a_client_is_paced_and_what_it_is_sent_is_nobodys() -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        client = ScriptedClient([b"x"], 0, began + 0.02, 0.02)
        await client.write({"type": "websocket.send", "text": "{}"})
        for _ in range(4):  # the start, then three chunks, the last due at 60 ms
            await client.receive()
        assert client.num_sent == 3
        return loop.time() - began

    assert asyncio.run(scenario()) >= 0.059
