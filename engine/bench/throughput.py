"""Requests of six seconds, many at once: the offline engine beside `transformers`.

Both run the same checkpoint in the same number format on the same audio, in one process, after
a warm-up of their own. `transformers` always encodes 30 s; the engine is measured with that
(`full`) and with contexts cut to the audio (`trimmed`).
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, cast

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
    events: list[EngineEvent] = []
    loop = Loop(build_engine(config), events.append)
    run_requests(loop, requests[:1], context)
    events.clear()
    return seconds_of(lambda: run_requests(loop, requests, context))


def seconds_of(call: Callable[[], object]) -> float:
    """How long `call` takes."""
    started = perf_counter()
    call()
    return perf_counter() - started


def run_requests(
    loop: Loop,
    requests: Sequence[NDArray[np.float32]],
    context: Context,
    language: str | None = None,
) -> None:
    """Have all of `requests` decoded at once; returns with the last final."""
    options = UtteranceOptions(
        language=language, interim_results=False, append_only=False, context=context
    )
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
    """Greedy generation by `transformers`, in batches of at most `batch`.

    A batch that does not fit into the memory of a GPU is halved, and so are those after it.
    `generation` goes to `generate` as it is.
    """

    def __init__(self, model: Any, extractor: Any, batch: int, **generation: Any) -> None:
        self._model = model
        self._extractor = extractor
        self._generation = generation
        self.batch = batch

    @classmethod
    def load(cls, config: EngineConfig) -> "TransformersBaseline":
        """The checkpoint that an engine of `config` runs, in the same number format."""
        import transformers  # the `bench` extra

        device = resolve_device(config.device)
        path = resolve_model(config.model, device=device.type)
        extractor: Any = transformers.WhisperFeatureExtractor.from_pretrained(path)
        model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(
            path, dtype=resolve_dtype(config.dtype, device), attn_implementation="sdpa"
        )
        return cls(
            model.to(device).eval(),
            extractor,
            _TRANSFORMERS_BATCH,
            max_new_tokens=config.max_new_tokens,
        )

    @torch.inference_mode()
    def generate(self, requests: Sequence[NDArray[np.float32]]) -> list[list[int]]:
        """The tokens of each request; returns once the device is done."""
        found: list[list[int]] = []
        while len(found) < len(requests):
            batch = requests[len(found) : len(found) + self.batch]
            try:
                found += self._generate(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self.batch = len(batch) // 2
        return found

    def _generate(self, requests: Sequence[NDArray[np.float32]]) -> list[list[int]]:
        device, dtype = self._model.device, self._model.dtype
        features = self._extractor(
            list(requests), sampling_rate=SAMPLE_RATE, return_tensors="pt", device=str(device)
        )
        tokens = self._model.generate(
            features.input_features.to(device, dtype),
            num_beams=1,
            do_sample=False,
            **self._generation,
        )
        return cast("list[list[int]]", tokens.tolist())


def measure_transformers(
    baseline: TransformersBaseline, requests: Sequence[NDArray[np.float32]]
) -> float:
    """Seconds from samples to tokens for all of `requests`."""
    baseline.generate(requests[:1])
    return seconds_of(lambda: baseline.generate(requests))


def measure(
    config: EngineConfig, recordings: Sequence[NDArray[np.float32]], counts: Sequence[int]
) -> list[dict[str, Any]]:
    """A row for each number of requests and each way to decode them."""
    baseline = TransformersBaseline.load(config)
    rows = []
    for count in counts:
        requests = cut_requests(recordings, count)
        timings = {
            "starling, trimmed": measure_engine(config, requests, "trimmed"),
            "starling, full": measure_engine(config, requests, "full"),
            "transformers": measure_transformers(baseline, requests),
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
