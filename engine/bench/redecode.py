"""What drafts save: windows that grow by the interval of partials, decoded with and without.

Every window of every utterance is decoded twice, once token by token and once with the previous
hypothesis as a draft. Both must say the same at every step; the figures are decoder passes and
milliseconds per emitted token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.assembly import build_engine
from engine.audio.units import Samples, samples_from_ms
from engine.config import EngineConfig
from engine.events import (
    AppendAudio,
    EngineEvent,
    FinishUtterance,
    HypothesisUpdated,
    OpenUtterance,
    SegmentClosed,
    UtteranceId,
    UtteranceOptions,
)
from engine.loop import Loop

_PASSES = ("PrefillStep", "VerifyStep", "DecodeStep")


@dataclass(frozen=True, slots=True)
class _Measured:
    texts: list[str]
    hypotheses: int
    tokens: int
    passes: int
    decoder_ms: float
    wall_ms: float


def measure(
    config: EngineConfig, utterances: Sequence[NDArray[np.float32]], interval_ms: int
) -> list[dict[str, Any]]:
    """One row without drafts, one with; `utterances` are 16 kHz mono float32.

    Raises AssertionError where drafts changed what is said.
    """
    options = UtteranceOptions(append_only=False, interim_interval=samples_from_ms(interval_ms))
    rows = []
    said: list[list[str]] = []
    for use_drafts in (False, True):
        measured = _decode_growing(replace(config, use_drafts=use_drafts), utterances, options)
        said.append(measured.texts)
        rows.append(
            {
                "drafts": "on" if use_drafts else "off",
                "hypotheses": measured.hypotheses,
                "tokens": measured.tokens,
                "passes": measured.passes,
                "passes / token": measured.passes / measured.tokens,
                "decoder ms / token": measured.decoder_ms / measured.tokens,
                "all ms / token": measured.wall_ms / measured.tokens,
            }
        )
    if said[0] != said[1]:
        raise AssertionError("drafts changed the transcript")
    return rows


def _decode_growing(
    config: EngineConfig, utterances: Sequence[NDArray[np.float32]], options: UtteranceOptions
) -> _Measured:
    engine = build_engine(config)
    events: list[EngineEvent] = []
    loop = Loop(engine, events.append)
    started = perf_counter()
    for number, samples in enumerate(utterances):
        utterance_id = UtteranceId(number)
        loop.take([OpenUtterance(utterance_id, Samples(0), options)])
        for start in range(0, len(samples), options.interim_interval):
            loop.take(
                [AppendAudio(utterance_id, samples[start : start + options.interim_interval])]
            )
            while loop.run_step():
                pass
        loop.take([FinishUtterance(utterance_id)])
        while loop.run_step():
            pass
    wall = perf_counter() - started
    steps = engine.metrics.steps
    said = [event for event in events if isinstance(event, HypothesisUpdated | SegmentClosed)]
    return _Measured(
        [event.text for event in said],
        len(said),
        engine.metrics.tokens,
        sum(steps[kind].rows for kind in _PASSES if kind in steps),
        1000 * sum(steps[kind].seconds for kind in _PASSES if kind in steps),
        1000 * wall,
    )
