"""Requests of six seconds, many at once, with random weights: engine and `transformers`.

The engine (`eager`, and with CUDA graphs where there is a GPU: `graphs`) and `transformers` run
the same weights in the same number format in one process, and each request gets the same number
of tokens. Every variant is built once. It is timed twice at every count: `first`, after a warm-up
with one request, the counts rising, so that no batch is larger than any before; then `warm`,
after a warm-up with the largest. `transformers` always encodes 30 s, as the engine does with the
context `full`. Times are from samples to tokens, features computed on the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE
from engine.bench.direct import free_memory
from engine.bench.random_checkpoint import (
    forced_length_config,
    random_audio,
    random_checkpoint,
    random_engine,
)
from engine.bench.throughput import (
    REQUEST_SECONDS,
    TransformersBaseline,
    run_requests,
    seconds_of,
)
from engine.bench.time_box import TimeBox
from engine.config import EngineConfig
from engine.events import Context, EngineEvent, SegmentClosed
from engine.loop import Loop
from engine.model.checkpoint import Checkpoint
from engine.model.dims import ModelDims

COUNTS: Final = (1, 16, 32, 64, 128, 256)
CONTEXTS: Final[tuple[Context, ...]] = ("full", "trimmed")

_LANGUAGE: Final = "en"
# A GPU takes all at once and is left to say what does not fit; a processor gains nothing by more.
_TRANSFORMERS_BATCH: Final = {"cpu": 16, "cuda": 256}

Requests = Sequence[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class _Timed:
    """Seconds for all requests, by count: the first time, and when everything is warm."""

    first: dict[int, float]
    warm: dict[int, float]


def measure(
    name: str,
    counts: Sequence[int] = COUNTS,
    *,
    device: torch.device,
    dtype: torch.dtype,
    contexts: Sequence[Context] = CONTEXTS,
    dims: ModelDims | None = None,
    box: TimeBox | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """A row for each number of requests, each engine and each context.

    `name` and `dims` are `random_checkpoint`'s, `settings` EngineConfig's. Where `transformers`
    fails, its rows are left out, and `box` is told. Raises ConfigError, and AssertionError where
    a request did not get all its tokens.
    """
    box = box or TimeBox()
    checkpoint = random_checkpoint(name, device=device, dtype=dtype, dims=dims)
    config = forced_length_config(**settings)
    counts = sorted(counts)
    requests = [
        random_audio(REQUEST_SECONDS * SAMPLE_RATE, seed=number) for number in range(counts[-1])
    ]
    timed: dict[tuple[str, str], _Timed] = {}
    variants = {"eager": replace(config, cuda_graphs="off")}
    if device.type == "cuda":
        variants["graphs"] = replace(config, cuda_graphs="on")
    for variant, variant_config in variants.items():
        run = _EngineRun(checkpoint, variant_config, device, dtype)
        for context in contexts:
            timed[variant, context] = _time(partial(run, context), requests, counts)
        del run
        free_memory(device)  # the next engine takes a share of what is free
    reason = ""
    try:
        generate = _TransformersRun(checkpoint, config, device)
        timed["transformers", "full"] = _time(generate, requests, counts)
    except torch.AcceleratorError:
        raise  # no kernel can be launched after it
    except Exception as exc:  # noqa: BLE001 - any library's way to say that it cannot
        reason = f"{type(exc).__name__}: {exc}"
    if reason:
        box.leave_out("transformers", reason)
    return [
        _row(count, engine, context, times)
        for count in counts
        for (engine, context), times in timed.items()
    ]


def expected_tokens(config: EngineConfig) -> int:
    """How many tokens a request gets under `forced_length_config`."""
    budget = config.base_tokens + int(REQUEST_SECONDS * config.tokens_per_second)
    return min(config.max_new_tokens, budget)


def transformers_model(checkpoint: Checkpoint) -> Any:
    """The same weights as a WhisperForConditionalGeneration, where and as they are; no copy."""
    import transformers  # the `bench` extra

    dims, tokenizer, generation = checkpoint.dims, checkpoint.tokenizer, checkpoint.generation
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.eot,
        "eos_token_id": tokenizer.eot,
        "pad_token_id": tokenizer.eot,
        "decoder_start_token_id": tokenizer.sot,
    }
    whisper_config: Any = transformers.WhisperConfig
    config = whisper_config(
        vocab_size=dims.n_vocab,
        num_mel_bins=dims.n_mels,
        d_model=dims.n_audio_state,
        encoder_layers=dims.n_audio_layer,
        encoder_attention_heads=dims.n_audio_head,
        encoder_ffn_dim=dims.n_audio_mlp,
        decoder_layers=dims.n_text_layer,
        decoder_attention_heads=dims.n_text_head,
        decoder_ffn_dim=dims.n_text_mlp,
        max_source_positions=dims.n_audio_ctx,
        max_target_positions=dims.n_text_ctx,
        attn_implementation="sdpa",
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **special,
    )
    with torch.device("meta"):
        model: Any = transformers.WhisperForConditionalGeneration(config)
    weights = {f"model.{key}": tensor for key, tensor in checkpoint.weights.items()}
    weights["proj_out.weight"] = checkpoint.weights["decoder.embed_tokens.weight"]
    model.load_state_dict(weights, strict=True, assign=True)
    model.tie_weights()
    generation_config: Any = transformers.GenerationConfig
    model.generation_config = generation_config(
        **special,
        max_length=dims.n_text_ctx,
        no_timestamps_token_id=tokenizer.no_timestamps,
        prev_sot_token_id=tokenizer.sot_prev,
        is_multilingual=True,
        return_timestamps=False,
        suppress_tokens=list(generation.suppress_tokens),
        begin_suppress_tokens=list(generation.begin_suppress_tokens),
        lang_to_id={f"<|{code}|>": token for code, token in tokenizer.languages.items()},
        task_to_id={"transcribe": tokenizer.transcribe, "translate": tokenizer.translate},
    )
    return model.eval()


class _EngineRun:
    """Decodes requests with one engine."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: EngineConfig,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._events: list[EngineEvent] = []
        engine = random_engine(checkpoint, config, device=device, dtype=dtype)
        self._loop = Loop(engine, self._events.append)
        self._expected = expected_tokens(config)

    def __call__(self, context: Context, requests: Requests) -> None:
        self._events.clear()
        run_requests(self._loop, requests, context, _LANGUAGE)
        finals = [event for event in self._events if isinstance(event, SegmentClosed)]
        _check([list(final.tokens) for final in finals], len(requests), self._expected)


class _TransformersRun:
    """Decodes requests with `transformers`."""

    def __init__(self, checkpoint: Checkpoint, config: EngineConfig, device: torch.device) -> None:
        import transformers

        # It has hints about every option that generation is given.
        transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        extractor: Any = transformers.WhisperFeatureExtractor
        self._expected = expected_tokens(config)
        self._baseline = TransformersBaseline(
            transformers_model(checkpoint),
            extractor(feature_size=checkpoint.dims.n_mels),
            _TRANSFORMERS_BATCH[device.type],
            language=_LANGUAGE,
            task="transcribe",
            min_new_tokens=self._expected,
            max_new_tokens=self._expected,
            # The one raw call: nothing is split at timestamps and looked at again behind it.
            force_unique_generate_call=True,
        )
        prefix = checkpoint.tokenizer.forced_prefix(_LANGUAGE, "transcribe", timestamps=False)
        self._prefix_length = len(prefix)

    def __call__(self, requests: Requests) -> None:
        said = [tokens[self._prefix_length :] for tokens in self._baseline.generate(requests)]
        _check(said, len(requests), self._expected)


def _check(said: Sequence[Sequence[int]], num_requests: int, num_tokens: int) -> None:
    lengths = {len(tokens) for tokens in said}
    if len(said) != num_requests or lengths != {num_tokens}:
        raise AssertionError(
            f"{num_requests} requests of {num_tokens} tokens became {len(said)} of {lengths}"
        )


def _time(run: Callable[[Requests], None], requests: Requests, counts: Sequence[int]) -> _Timed:
    run(requests[:1])
    first = {count: seconds_of(lambda: run(requests[:count])) for count in counts}  # noqa: B023
    run(requests)
    warm = {count: seconds_of(lambda: run(requests[:count])) for count in counts}  # noqa: B023
    return _Timed(first, warm)


def _row(count: int, engine: str, context: str, times: _Timed) -> dict[str, Any]:
    first, warm = times.first[count], times.warm[count]
    return {
        "requests": count,
        "engine": engine,
        "context": context,
        "first s": first,
        "first s each": first / count,
        "warm s": warm,
        "warm s each": warm / count,
        "requests / s": count / warm,
    }
