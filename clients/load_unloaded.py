"""What the server hears in a clip when it has nothing else to do.

The yardstick of a load test: the same wire and checkpoint, but the whole clip at once, without
partials and decoded freely.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from msgspec.structs import replace

from clients.client import transcribe
from clients.load_clips import PreparedAudio
from clients.load_session import BYTES_PER_S, Target
from stream_server.protocol import Final as FinalMessage

CHUNK_BYTES: Final = BYTES_PER_S // 2  # half of the longest message the wire takes
AT_ONCE: Final = 4  # sessions, which share steps; few enough to count as no load


async def decode_unloaded(
    audio: PreparedAudio, clips: Sequence[int], target: Target
) -> dict[int, str]:
    """The text of each clip. Raises StreamError."""
    start = replace(target.start, interim_results=False, append_only=False)
    left, texts = iter(clips), dict[int, str]()

    async def lane() -> None:
        for clip in left:
            texts[clip] = " ".join(
                [
                    message.text.strip()
                    async for message in transcribe(
                        target.url, _at_once(audio.clip(clip)), start, api_key=target.api_key
                    )
                    if isinstance(message, FinalMessage)
                ]
            )

    lanes = [asyncio.create_task(lane()) for _ in range(AT_ONCE)]
    try:
        await asyncio.gather(*lanes)
    finally:
        for task in lanes:
            task.cancel()
        await asyncio.wait(lanes)
    return texts


async def _at_once(pcm: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(pcm), CHUNK_BYTES):
        yield pcm[at : at + CHUNK_BYTES]
