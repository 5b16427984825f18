"""Every setting that only a device has builds, warms up and hears two sentences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.assembly import Engine, assemble, warm_up
from engine.audio.units import Samples
from engine.config import Attention, EngineConfig, KvDtype, Weights
from engine.errors import ConfigError
from engine.events import (
    AppendAudio,
    FinishUtterance,
    HypothesisUpdated,
    OpenUtterance,
    UtteranceFailed,
    UtteranceId,
)
from engine.model.backends import load_backend
from engine.model.checkpoint import load_checkpoint
from tests.gpu.building import (
    EAGER,
    EMBEDDED,
    ON_GPU,
    TRIMMED,
    Audio,
    agreement,
    engine_on,
    words_of,
)
from tests.support.engines import Driver, decode_together, tokens_of

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

SENTENCES = "It's a beautiful day for a long walk. The next train leaves in ten minutes."
HEARS = replace(ON_GPU, cuda_graphs="on", num_slots=16, max_new_tokens=60, repetition_guard=True)


def warm_engine(device: torch.device, config: EngineConfig, dtype: torch.dtype) -> Engine:
    checkpoint = load_checkpoint(EMBEDDED)
    engine = engine_on(device, EMBEDDED, config, dtype)
    warm_up(engine.runner, checkpoint)
    return engine


def assert_hears(engine: Engine, audio: Audio, least: float = 0.8) -> None:
    (finals,) = decode_together(engine, [audio], TRIMMED)
    text = " ".join(final.text for final in finals)
    share = agreement(words_of(text), words_of(SENTENCES))
    print(f"{share:.0%}: {text}")
    assert share >= least, text


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("attention", ["triton", "sdpa", "eager", "flash", "auto"])
def test_every_back_end_hears_two_sentences(
    device: torch.device, speech: tuple[Audio, ...], attention: Attention, dtype: torch.dtype
) -> None:
    if attention != "auto":
        try:
            load_backend(attention, dtype, dtype)
        except ConfigError as exc:
            pytest.skip(str(exc))
    assert_hears(warm_engine(device, replace(HEARS, attention=attention), dtype), speech[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("weights", "kv_dtype"),
    [("int8", "auto"), ("int4", "auto"), ("auto", "fp8"), ("int8", "fp8")],
)
def test_smaller_weights_and_caches_hear_two_sentences(
    device: torch.device,
    speech: tuple[Audio, ...],
    weights: Weights,
    kv_dtype: KvDtype,
    dtype: torch.dtype,
) -> None:
    config = replace(HEARS, attention="triton", weights=weights, kv_dtype=kv_dtype)
    assert_hears(warm_engine(device, config, dtype), speech[0], least=0.7)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_other_back_ends_take_small_caches_too(
    device: torch.device, speech: tuple[Audio, ...], attention: Attention
) -> None:
    config = replace(HEARS, attention=attention, kv_dtype="fp8")
    assert_hears(warm_engine(device, config, torch.float16), speech[0], least=0.7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_says_of_speech_what_float32_says(
    device: torch.device, speech: tuple[Audio, ...], dtype: torch.dtype
) -> None:
    config = replace(EAGER, attention="triton", num_slots=32, max_batch=32, max_new_tokens=60)
    exact, rounded = (
        [tokens_of(final) for final in decode_together(engine, speech, TRIMMED)]
        for engine in (
            engine_on(device, EMBEDDED, config),
            engine_on(device, EMBEDDED, config, dtype),
        )
    )
    shares = [agreement(*pair) for pair in zip(rounded, exact, strict=True)]
    mean = sum(shares) / len(shares)
    print(f"{dtype}: {mean:.1%} of the tokens, {shares.count(1.0)} of {len(shares)} windows whole")
    assert mean > 0.8


def partials_of(engine: Engine, audio: Audio) -> list[str]:
    """What is shown while the audio comes in pieces of 400 ms, and in the end."""
    driver = Driver(engine)
    options = replace(TRIMMED, interim_results=True)
    driver.send(OpenUtterance(UtteranceId(1), Samples(0), options))
    for chunk in np.array_split(audio, len(audio) // 6_400):
        driver.send(AppendAudio(UtteranceId(1), chunk))
    driver.send(FinishUtterance(UtteranceId(1)))
    assert not [event for event in driver.events if isinstance(event, UtteranceFailed)]
    shown = [event.text for event in driver.events if isinstance(event, HypothesisUpdated)]
    return [*shown, " ".join(final.text for final in driver.closed(1))]


def test_partials_of_extended_windows_are_close_to_those_encoded_anew(
    device: torch.device, speech: tuple[Audio, ...]
) -> None:
    engine = warm_engine(device, replace(HEARS, partial_context="incremental"), torch.float16)
    extended = partials_of(engine, speech[0])
    assert engine.metrics.steps["ExtendStep"].count > 3
    anew = partials_of(warm_engine(device, HEARS, torch.float16), speech[0])
    shares = [
        agreement(words_of(text), words_of(known))
        for text, known in zip(extended, anew, strict=False)
    ]
    print(f"partials: {', '.join(f'{share:.0%}' for share in shares)} of the words")
    assert sum(shares) / len(shares) > 0.6
    assert agreement(words_of(extended[-1]), words_of(SENTENCES)) >= 0.8


def test_a_back_end_that_is_not_there_is_refused_by_name(device: torch.device) -> None:
    config = replace(HEARS, attention="flash")
    with pytest.raises(ConfigError, match="flash"):
        assemble(load_checkpoint(EMBEDDED), config, device=device, dtype=torch.float32)
