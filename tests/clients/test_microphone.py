import argparse
import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from clients.microphone import (
    MAX_WAITING,
    MicrophoneError,
    add_arguments,
    captured,
    run,
)


class Device:
    """A microphone that plays its blocks from a thread of its own, as PortAudio does."""

    def __init__(self, *blocks: bytes) -> None:
        self.blocks = blocks
        self.open = False
        self.played = threading.Event()

    @contextmanager
    def __call__(self, on_block: Callable[[bytes], None]) -> Iterator[None]:
        def play() -> None:
            for block in self.blocks:
                on_block(block)
            self.played.set()

        self.open = True
        player = threading.Thread(target=play)
        player.start()
        try:
            yield
        finally:
            player.join()
            self.open = False


def test_blocks_arrive_in_order_until_stop_closes_the_device() -> None:
    device = Device(b"a", b"b", b"c")

    async def record() -> list[bytes]:
        stop, heard = asyncio.Event(), []
        async for block in captured(device, stop):
            heard.append(block)
            if len(heard) == 3:
                stop.set()
        return heard

    assert asyncio.run(record()) == [b"a", b"b", b"c"]
    assert not device.open


def test_a_server_that_takes_no_audio_for_long_ends_the_recording() -> None:
    device = Device(*[b"a"] * (MAX_WAITING + 10))

    async def record() -> None:
        blocks = captured(device, asyncio.Event())
        await anext(blocks)
        await asyncio.to_thread(device.played.wait)
        await anext(blocks)

    with pytest.raises(MicrophoneError, match="no audio for 30 s"):
        asyncio.run(record())
    assert not device.open


def test_without_sounddevice_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([])) == 2
    assert "pip install 'starling-asr[mic]'" in capsys.readouterr().err
