"""Real engines around small checkpoints, driven step by step without a thread."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.assembly import Engine, assemble
from engine.audio.units import SAMPLE_RATE, Samples
from engine.config import EngineConfig, QualityThresholds
from engine.events import (
    AppendAudio,
    Command,
    EngineEvent,
    FinishUtterance,
    OpenUtterance,
    SegmentClosed,
    UtteranceFailed,
    UtteranceId,
    UtteranceOptions,
)
from engine.loop import Loop
from engine.model.checkpoint import load_checkpoint

Audio = NDArray[np.float32]

# Nothing is dropped or tried again: what comes out is the greedy decode, whatever it says.
GREEDY = EngineConfig(
    device="cpu",
    dtype="float32",
    num_slots=8,
    threads=2,
    max_new_tokens=40,
    repetition_guard=False,
    temperatures=(0.0,),
    thresholds=QualityThresholds(no_speech=2.0),
)


def babble(seconds: float, *, seed: int) -> Audio:
    """Bursts of coloured noise, each window different: something to decode at every moment."""
    generator = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    white = generator.standard_normal(count)
    envelope = np.repeat(generator.uniform(0.0, 1.0, count // 1600 + 1), 1600)[:count]
    tilt = generator.uniform(0.0, 0.95)
    coloured = white.copy()
    coloured[1:] += tilt * white[:-1]
    return (0.1 * envelope * coloured).astype(np.float32)


def load_engine(path: Path, config: EngineConfig = GREEDY) -> Engine:
    """An engine in float32 on the CPU."""
    return assemble(load_checkpoint(path), config, device=torch.device("cpu"), dtype=torch.float32)


class Driver:
    """Feeds commands to an engine, runs it until it rests and keeps what it says."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.events: list[EngineEvent] = []
        self._loop = Loop(engine, self.events.append)

    def send(self, *commands: Command) -> None:
        """Commands, then every step that they bring about."""
        self.post(*commands)
        while self._loop.run_step():
            pass

    def post(self, *commands: Command) -> None:
        """Commands alone."""
        self._loop.take(commands)

    def closed(self, utterance_id: int) -> list[SegmentClosed]:
        """The finals of one utterance, in order."""
        return [
            event
            for event in self.events
            if isinstance(event, SegmentClosed) and event.utterance_id == utterance_id
        ]


def decode_together(
    engine: Engine, audios: Sequence[Audio], options: UtteranceOptions
) -> list[list[SegmentClosed]]:
    """Decode whole windows as one batch; the finals of each, in order."""
    driver = Driver(engine)
    commands: list[Command] = []
    for number, audio in enumerate(audios):
        utterance_id = UtteranceId(number)
        commands += [
            OpenUtterance(utterance_id, Samples(0), options),
            AppendAudio(utterance_id, audio),
            FinishUtterance(utterance_id),
        ]
    driver.send(*commands)
    failures = [event for event in driver.events if isinstance(event, UtteranceFailed)]
    if failures:
        raise AssertionError(f"the engine failed: {failures}")
    return [driver.closed(number) for number in range(len(audios))]


def tokens_of(finals: Iterable[SegmentClosed]) -> list[int]:
    """All tokens of an utterance's finals."""
    return [token for final in finals for token in final.tokens]
