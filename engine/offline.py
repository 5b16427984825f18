"""A whole recording in, segments out, through the same scheduler as live speech.

Decides only the order: every region of speech is one utterance, all of them are decoded
together, and their segments come out in the order of the recording.
"""

from collections.abc import Iterator, Sequence
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import Samples
from engine.errors import StepError
from engine.events import (
    AppendAudio,
    EngineEvent,
    FinishUtterance,
    OpenUtterance,
    SegmentClosed,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
    UtteranceOptions,
)
from engine.worker import Worker

Region = tuple[Samples, Samples]


def transcribe(
    worker: Worker,
    samples: NDArray[np.float32],
    options: UtteranceOptions,
    regions: Sequence[Region] | None = None,
) -> Iterator[SegmentClosed]:
    """Yield the segments of `samples` [n], 16 kHz mono float32, as soon as they are in order.

    `regions` are the stretches to decode, in order; None means all of it. Raises StepError when
    the engine could not decode one.
    """
    events: SimpleQueue[EngineEvent] = SimpleQueue()
    order: list[UtteranceId] = []
    for start, end in [(Samples(0), Samples(len(samples)))] if regions is None else regions:
        utterance_id = worker.new_utterance_id()
        order.append(utterance_id)
        worker.open(OpenUtterance(utterance_id, start, options), events.put)
        worker.submit(AppendAudio(utterance_id, samples[start:end]))
        worker.submit(FinishUtterance(utterance_id))
    closed: dict[UtteranceId, list[SegmentClosed]] = {utterance_id: [] for utterance_id in order}
    finished: set[UtteranceId] = set()
    for utterance_id in order:
        while closed[utterance_id] or utterance_id not in finished:
            if closed[utterance_id]:
                yield closed[utterance_id].pop(0)
                continue
            event = events.get()
            match event:
                case SegmentClosed():
                    closed[event.utterance_id].append(event)
                case UtteranceFinished():
                    finished.add(event.utterance_id)
                case UtteranceFailed():
                    raise StepError(event.message)
