"""`starling mic`: live captions of the microphone in the terminal."""

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, Final

from clients.client import ConnectError, StreamError, transcribe
from clients.session_arguments import add_session_arguments, start_message
from clients.terminal import Display, choose_display
from stream_server.protocol import Start

CAPTURE_RATE: Final = 16_000  # what the models hear; PortAudio resamples where the device cannot
BLOCK_SAMPLES: Final = CAPTURE_RATE * 40 // 1000  # 40 ms, as a file is sent
MAX_WAITING: Final = 750  # blocks, 30 s: what a server takes before it stops reading

Capture = Callable[[Callable[[bytes], None]], AbstractContextManager[object]]
"""Opens the device; the argument is called with each block, on a thread of the device's own."""


class MicrophoneError(Exception):
    """There is no way to record; the message says what to install or choose."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` reads."""
    parser.add_argument("--device", help="number or part of the name; default: the system's")
    parser.add_argument("--json", action="store_true", help="the protocol's messages, one per line")
    add_session_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Caption until Ctrl-C, which still brings the last final.

    Returns 0, 1 where the session failed, 2 where there was none or no microphone.
    """
    start = start_message(args, sample_rate=CAPTURE_RATE, channels=1)
    display = choose_display(sys.stdout, as_json=args.json, partials=False)
    try:
        capture = sounddevice_capture(args.device)
        asyncio.run(_caption(args, capture, start, display))
    except KeyboardInterrupt:
        return 130
    except (MicrophoneError, ConnectError) as exc:
        print(f"starling mic: {exc}", file=sys.stderr)
        return 2
    except StreamError as exc:
        print(f"starling mic: {exc}", file=sys.stderr)
        return 1
    return 0


def sounddevice_capture(device: str | None) -> Capture:
    """Recording through PortAudio. Raises MicrophoneError where it is not installed."""
    try:
        import sounddevice
    except ImportError as exc:
        raise MicrophoneError(
            "recording needs the sounddevice package; "
            "accepted: pip install 'starling-asr[mic]', or starling stream FILE"
        ) from exc
    except OSError as exc:
        raise MicrophoneError(
            f"recording needs the PortAudio library ({exc}); "
            "accepted: apt install libportaudio2, or brew install portaudio"
        ) from exc

    def open_device(on_block: Callable[[bytes], None]) -> AbstractContextManager[object]:
        def callback(data: Any, frames: int, when: object, status: object) -> None:
            on_block(bytes(data))

        try:
            stream: AbstractContextManager[object] = sounddevice.RawInputStream(
                samplerate=CAPTURE_RATE,
                blocksize=BLOCK_SAMPLES,
                device=int(device) if device and device.isdecimal() else device,
                channels=1,
                dtype="int16",
                callback=callback,
            )
        except (sounddevice.PortAudioError, ValueError) as exc:
            raise MicrophoneError(
                f"cannot record from {device or 'the default device'}: {exc}; accepted: "
                "a number or name that `python -m sounddevice` lists"
            ) from exc
        return stream

    return open_device


async def captured(capture: Capture, stop: asyncio.Event) -> AsyncIterator[bytes]:
    """What the device records until `stop` is set, block by block.

    Raises MicrophoneError where more than MAX_WAITING blocks had to wait: the words would be too
    old to help.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: stopped
    overflow = asyncio.Event()

    def keep(block: bytes) -> None:
        if waiting.qsize() < MAX_WAITING:
            waiting.put_nowait(block)
        else:
            overflow.set()

    def on_block(block: bytes) -> None:
        with suppress(RuntimeError):  # the loop closed before the device did
            loop.call_soon_threadsafe(keep, block)

    async def end() -> None:
        await stop.wait()
        waiting.put_nowait(None)

    ending = asyncio.create_task(end())
    try:
        with capture(on_block):
            while (block := await waiting.get()) is not None:
                if overflow.is_set():
                    raise MicrophoneError("the server has been taking no audio for 30 s")
                yield block
    finally:
        ending.cancel()


async def _caption(
    args: argparse.Namespace, capture: Capture, start: Start, display: Display
) -> None:
    stop = asyncio.Event()
    # The first Ctrl-C ends the recording; a second one, with the handler gone, ends everything.
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop.set()

    with suppress(NotImplementedError):  # Windows has no such handlers: Ctrl-C ends at once there
        loop.add_signal_handler(signal.SIGINT, interrupted)
    print("Listening. Ctrl-C ends.", file=sys.stderr)
    with display:
        async for message in transcribe(
            args.url,
            captured(capture, stop),
            start,
            api_key=args.api_key,
            msgpack=args.msgpack,
        ):
            display.show(message)
