"""Requests of six seconds, many at once: the offline engine beside `transformers`.

Both run the same checkpoint in the same number format on the same audio, in one process, after
a warm-up of their own. `transformers` always encodes 30 s; the engine is measured with that
(`full`) and with contexts cut to the audio (`trimmed`).
"""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.assembly import build_engine, resolve_device, resolve_dtype
from engine.audio.units import SAMPLE_RATE, Samples
from engine.config import EngineConfig
from engine.events import (
    AppendAudio,
    Command,
    Context,
    EngineEvent,
    FinishUtterance,
    OpenUtterance,
    UtteranceId,
    UtteranceOptions,
)
from engine.loop import Loop
from engine.model.hub import resolve_model

REQUEST_SECONDS = 6
_TRANSFORMERS_BATCH = 16  # as many 30 s windows as still fit a small machine's cache


def cut_requests(
    recordings: Sequence[NDArray[np.float32]], number: int
) -> list[NDArray[np.float32]]:
    """`number` stretches of six seconds from `recordings`, again from the start when used up."""
    length = REQUEST_SECONDS * SAMPLE_RATE
    pool = np.concatenate(recordings)
    if len(pool) < length:
        pool = np.tile(pool, -(-length // len(pool)))
    starts = range(0, len(pool) - length + 1, length)
    return [pool[starts[i % len(starts)] :][:length] for i in range(number)]


def measure_engine(
    config: EngineConfig, requests: Sequence[NDArray[np.float32]], context: Context
) -> float:
    """Seconds until every request has its final."""
    loop, finals = _loop(config)
    _run(loop, requests[:1], context)
    finals.clear()
    started = perf_counter()
    _run(loop, requests, context)
    return perf_counter() - started


def _loop(config: EngineConfig) -> tuple[Loop, list[EngineEvent]]:
    events: list[EngineEvent] = []
    return Loop(build_engine(config), events.append), events


def _run(loop: Loop, requests: Sequence[NDArray[np.float32]], context: Context) -> None:
    options = UtteranceOptions(interim_results=False, append_only=False, context=context)
    commands: list[Command] = []
    for number, samples in enumerate(requests):
        utterance_id = UtteranceId(number)
        commands += [
            OpenUtterance(utterance_id, Samples(0), options),
            AppendAudio(utterance_id, samples),
            FinishUtterance(utterance_id),
        ]
    loop.take(commands)
    while loop.run_step():
        pass


class TransformersBaseline:
    """Greedy generation of the same checkpoint by `transformers`, in batches."""

    def __init__(self, config: EngineConfig) -> None:
        import transformers  # the `bench` extra

        device = resolve_device(config.device)
        self._dtype = resolve_dtype(config.dtype, device)
        self._device = device
        path = resolve_model(config.model, device=device.type)
        self._extractor: Any = transformers.WhisperFeatureExtractor.from_pretrained(path)
        loaded: Any = transformers.WhisperForConditionalGeneration.from_pretrained(
            path, dtype=self._dtype, attn_implementation="sdpa"
        )
        self._model = loaded.to(device).eval()
        self._max_new_tokens = config.max_new_tokens

    @torch.inference_mode()
    def measure(self, requests: Sequence[NDArray[np.float32]]) -> float:
        """Seconds from samples to tokens for all of `requests`."""
        self._generate(requests[:1])
        started = perf_counter()
        for first in range(0, len(requests), _TRANSFORMERS_BATCH):
            self._generate(requests[first : first + _TRANSFORMERS_BATCH])
        return perf_counter() - started

    def _generate(self, requests: Sequence[NDArray[np.float32]]) -> None:
        features = self._extractor(list(requests), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        self._model.generate(
            features.input_features.to(self._device, self._dtype),
            max_new_tokens=self._max_new_tokens,
            num_beams=1,
            do_sample=False,
        )


def measure(
    config: EngineConfig, recordings: Sequence[NDArray[np.float32]], counts: Sequence[int]
) -> list[dict[str, Any]]:
    """A row for each number of requests and each way to decode them."""
    baseline = TransformersBaseline(config)
    rows = []
    for count in counts:
        requests = cut_requests(recordings, count)
        timings = {
            "starling, trimmed": measure_engine(config, requests, "trimmed"),
            "starling, full": measure_engine(config, requests, "full"),
            "transformers": baseline.measure(requests),
        }
        rows += [
            {
                "requests": count,
                "engine": name,
                "seconds": seconds,
                "requests / s": count / seconds,
                "x real time": count * REQUEST_SECONDS / seconds,
            }
            for name, seconds in timings.items()
        ]
    return rows
