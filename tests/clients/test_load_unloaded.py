import asyncio
from pathlib import Path

import numpy as np
import pytest

from clients.client import ConnectError
from clients.load_clips import Clip, ClipStore
from clients.load_session import Target
from clients.load_unloaded import AT_ONCE, decode_unloaded
from stream_server.protocol import Done, Final, Start
from tests.support.clips import TWO_SENTENCES, read_clip
from tests.support.scripted_server import Peer, ScriptedServer, ready, running


def final(number: int, text: str) -> Final:
    return Final(
        seq=2 + number,
        segment=number,
        start=0.0,
        end=1.0,
        text=text,
        language="en",
        language_probability=1.0,
        confidence=1.0,
        no_speech_prob=0.0,
    )


async def script(peer: Peer) -> None:
    """Two finals, the second of which tells how much audio there was."""
    await peer.receive()
    await peer.send(ready())
    await peer.receive_until_stop()
    await peer.send(final(0, " it was"))
    await peer.send(final(1, f" {len(peer.pcm)} bytes"))
    await peer.send(Done(seq=4, audio_s=1.0, segments=2))


def test_each_clip_is_sent_whole_without_partials_and_decoded_freely(tmp_path: Path) -> None:
    clips = [Clip(TWO_SENTENCES, "two sentences")] * (AT_ONCE + 2)
    audio = ClipStore.prepare(clips, tmp_path / "clips.pcm").open()
    wanted = [0, *range(2, AT_ONCE + 2)]

    async def decode() -> dict[int, str]:
        async with running(server):
            target = Target(server.url, Start(language="en", word_timestamps=True))
            return await decode_unloaded(audio, wanted, target)

    server = ScriptedServer(script)
    size = 2 * len(read_clip(TWO_SENTENCES))
    assert asyncio.run(decode()) == dict.fromkeys(wanted, f"it was {size} bytes")
    assert len(server.peers) == len(wanted)
    for peer in server.peers:
        assert peer.pcm == audio.clip(0)
        assert (peer.start.language, peer.start.word_timestamps) == ("en", True)
        assert not peer.start.interim_results
        assert not peer.start.append_only


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    np.zeros(800, "<i2").tofile(tmp_path / "clips.pcm")
    audio = ClipStore(tmp_path / "clips.pcm", (100,)).open()
    with pytest.raises(ConnectError, match="is the server running"):
        asyncio.run(decode_unloaded(audio, [0, 0], Target("ws://127.0.0.1:1", Start())))
