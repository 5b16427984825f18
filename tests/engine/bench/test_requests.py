from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from engine.bench.random_checkpoint import (
    forced_length_config,
    random_audio,
    random_checkpoint,
    random_engine,
)
from engine.bench.requests import expected_tokens, measure, transformers_model
from engine.bench.throughput import TransformersBaseline
from engine.bench.time_box import TimeBox
from engine.events import UtteranceOptions
from tests.support.engines import decode_together
from tests.support.model_dims import small_dims

CPU = torch.device("cpu")
DIMS = small_dims(
    n_mels=80, n_audio_state=64, n_audio_mlp=128, n_vocab=2200, n_text_ctx=128, n_text_state=64
)


def test_engine_and_transformers_are_timed_with_every_number_of_requests() -> None:
    rows = measure(
        "small", (3, 1), device=CPU, dtype=torch.float32, dims=DIMS, num_slots=4, threads=1
    )
    assert [(row["requests"], row["engine"], row["context"]) for row in rows] == [
        (count, engine, context)
        for count in (1, 3)
        for engine, context in (
            ("eager", "full"),
            ("eager", "trimmed"),
            ("transformers", "full"),
        )
    ]
    for row in rows:
        assert row["first s"] > 0.0
        per_request = row["warm s"] / row["requests"]
        assert row["warm s each"] == pytest.approx(per_request)
        assert row["requests / s"] == pytest.approx(1 / per_request)


def test_transformers_say_what_the_engine_says_with_the_same_weights() -> None:
    checkpoint = random_checkpoint("small", device=CPU, dtype=torch.float32, dims=DIMS)
    config = forced_length_config(num_slots=2, threads=1)
    audio = random_audio(6 * 16_000)
    options = UtteranceOptions(language="en", interim_results=False, context="full")
    engine = random_engine(checkpoint, config, device=CPU, dtype=torch.float32)
    ((final,),) = decode_together(engine, [audio], options)
    extractor: Any = transformers.WhisperFeatureExtractor
    baseline = TransformersBaseline(
        transformers_model(checkpoint),
        extractor(feature_size=DIMS.n_mels),
        batch=1,
        language="en",
        task="transcribe",
        max_new_tokens=expected_tokens(config),
        force_unique_generate_call=True,
    )
    said = baseline.generate([audio, audio])
    forced = checkpoint.tokenizer.forced_prefix("en", "transcribe", timestamps=False)
    assert said == [[*forced, *final.tokens]] * 2


def test_the_engine_is_timed_where_transformers_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(transformers.WhisperForConditionalGeneration, "generate", fail)
    box = TimeBox()
    rows = measure(
        "small",
        (1,),
        device=CPU,
        dtype=torch.float32,
        contexts=("trimmed",),
        dims=DIMS,
        box=box,
        num_slots=2,
        threads=1,
    )
    assert [(row["engine"], row["context"]) for row in rows] == [("eager", "trimmed")]
    assert box.left_out == ["transformers: RuntimeError: no such kernel"]


def test_a_request_gets_what_its_length_allows() -> None:
    assert expected_tokens(forced_length_config()) == 21
    assert expected_tokens(forced_length_config(max_new_tokens=8)) == 8


def test_requests_that_lack_tokens_are_not_timed() -> None:
    """A text context that is too short ends them early."""
    with pytest.raises(AssertionError, match=r"1 requests of 21 tokens became 1 of \{12\}"):
        measure(
            "small",
            (1,),
            device=CPU,
            dtype=torch.float32,
            dims=replace(DIMS, n_text_ctx=16),
            contexts=("trimmed",),
            num_slots=2,
        )
