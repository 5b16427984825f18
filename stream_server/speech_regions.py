"""Where there is speech in a whole recording: the regions that live sessions would decode.

The same gate and endpointer as a session's, so a recording that is transcribed is cut into the
same utterances, sample for sample, as one that is streamed.
"""

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import Samples, samples_from_ms
from engine.events import (
    AppendAudio,
    OpenUtterance,
    UtteranceId,
    UtteranceOptions,
)
from stream_server import protocol
from stream_server.effects import Effect, Submit
from stream_server.endpointer import VAD_FRAME_SAMPLES, Endpointer
from stream_server.silero_net import SileroNet
from stream_server.speech_gate import SpeechGate


def find_speech(
    samples: NDArray[np.float32], net: SileroNet, settings: protocol.Start
) -> list[tuple[Samples, Samples]]:
    """Regions [start, end) of `samples` [n], 16 kHz mono float32, in order, not overlapping.

    `settings` are the session's that would hear it: threshold and endpoint silence.
    """
    count = 0

    def new_utterance_id() -> UtteranceId:
        nonlocal count
        count += 1
        return UtteranceId(count)

    endpointer = Endpointer(settings.vad_threshold, samples_from_ms(settings.endpoint_silence_ms))
    gate = SpeechGate(endpointer, UtteranceOptions(), new_utterance_id)
    effects: list[Effect] = gate.receive_audio(samples)
    for probability in net.score(samples)[: len(samples) // VAD_FRAME_SAMPLES]:
        effects += gate.receive_probability(float(probability))
    effects += [*gate.release(), *gate.cut(Samples(len(samples)))]
    regions: list[tuple[Samples, Samples]] = []
    for effect in effects:
        match effect:
            case Submit(command=OpenUtterance(start=start)):
                regions.append((start, start))
            case Submit(command=AppendAudio(samples=added)):
                start, end = regions[-1]
                regions[-1] = (start, Samples(end + len(added)))
    return regions
