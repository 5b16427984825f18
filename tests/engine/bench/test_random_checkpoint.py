from dataclasses import replace
from math import isfinite

import numpy as np
import pytest
import torch

from engine.assembly import assemble
from engine.audio.units import SAMPLE_RATE
from engine.bench.random_checkpoint import (
    PUBLISHED,
    TOKENS_PER_SECOND,
    forced_length_config,
    make_tokenizer,
    random_audio,
    random_checkpoint,
    random_engine,
)
from engine.errors import ConfigError
from engine.events import SegmentClosed, UtteranceOptions
from engine.model.checkpoint import Checkpoint, expected_shapes
from engine.model.whisper import Whisper
from engine.text.vocabulary import NUM_TIMESTAMPS
from tests.support.engines import decode_together
from tests.support.model_dims import small_dims

CPU = torch.device("cpu")
# Wide enough that the token that is due leads, as it does at every published width.
DIMS = small_dims(
    n_mels=80,
    n_audio_state=64,
    n_audio_layer=2,
    n_audio_mlp=128,
    n_vocab=2200,
    n_text_ctx=128,
    n_text_state=64,
    n_text_layer=2,
    n_text_mlp=128,
)
OPTIONS = UtteranceOptions(language="en", interim_results=False, context="trimmed")


def small_checkpoint(dtype: torch.dtype = torch.float32, *, seed: int = 0) -> Checkpoint:
    return random_checkpoint("small", device=CPU, dtype=dtype, seed=seed, dims=DIMS)


def finals_of(
    checkpoint: Checkpoint, *seconds: float, dtype: torch.dtype = torch.float32
) -> list[SegmentClosed]:
    engine = assemble(
        checkpoint, forced_length_config(num_slots=4, threads=1), device=CPU, dtype=dtype
    )
    audios = [random_audio(int(s * SAMPLE_RATE), seed=i) for i, s in enumerate(seconds)]
    return [final for (final,) in decode_together(engine, audios, OPTIONS)]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # As openai/whisper's README rounds them, in millions.
        ("tiny", 39),
        ("base", 74),
        ("small", 244),
        ("medium", 769),
        ("large-v3", 1550),
        ("large-v3-turbo", 809),
    ],
)
def test_published_sizes_have_as_many_parameters_as_published(name: str, parameters: int) -> None:
    shapes = expected_shapes(PUBLISHED[name]).values()
    millions = sum(torch.Size(shape).numel() for shape in shapes) / 1e6
    assert millions == pytest.approx(parameters, rel=0.04)


def test_vocabularies_have_whispers_own_layout() -> None:
    # The ids that openai/whisper's tokenizer gives to 51865 and 51866 tokens.
    older, newer = make_tokenizer(51_865), make_tokenizer(51_866)
    assert (older.eot, older.sot, older.no_timestamps) == (50_257, 50_258, 50_363)
    assert (newer.eot, newer.sot, newer.no_timestamps) == (50_257, 50_258, 50_364)
    assert len(older.languages) == 99
    assert newer.languages["yue"] == 50_358
    assert newer.timestamp_begin + NUM_TIMESTAMPS == 51_866


def test_bytes_and_words_of_a_made_up_tokenizer_are_text() -> None:
    tokenizer = make_tokenizer(2200)
    assert tokenizer.decode(tokenizer.encode("Grüße, 世界")) == "Grüße, 世界"
    words = [tokenizer.decode([token]) for token in range(256, tokenizer.eot)]
    assert len(set(words)) == len(words)
    assert all(word[0] == " " and word[1:].isalpha() for word in words)


def test_a_vocabulary_without_room_for_words_is_refused() -> None:
    least = 256 + 1 + 8 + 99 + NUM_TIMESTAMPS
    assert make_tokenizer(least).decode([256]) == " aaaa"
    with pytest.raises(ConfigError, match=f"the least accepted is {least}"):
        make_tokenizer(least - 1)


def test_weights_are_those_that_the_model_asks_for() -> None:
    checkpoint = small_checkpoint(torch.bfloat16)
    assert {name: tuple(it.shape) for name, it in checkpoint.weights.items()} == expected_shapes(
        DIMS
    )
    assert {tensor.dtype for tensor in checkpoint.weights.values()} == {torch.bfloat16}
    model = Whisper.from_checkpoint(checkpoint, dtype=torch.bfloat16, device=CPU)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_a_seed_is_a_checkpoint() -> None:
    first, again, other = (small_checkpoint(seed=seed) for seed in (1, 1, 2))
    for name, tensor in first.weights.items():
        assert torch.equal(tensor, again.weights[name])
    name = "decoder.layers.0.fc1.weight"
    assert not torch.equal(first.weights[name], other.weights[name])


def test_fewer_decoder_layers_may_be_asked_for() -> None:
    checkpoint = random_checkpoint(
        "large-v3-turbo", device=CPU, dtype=torch.float32, decoder_layers=1, dims=DIMS
    )
    assert checkpoint.dims == replace(DIMS, n_text_layer=1)
    assert checkpoint.generation.alignment_heads == ((0, 0), (0, 1))


def test_a_size_that_nobody_published_is_refused() -> None:
    with pytest.raises(ConfigError, match="got 'huge', accepted are tiny, base"):
        random_checkpoint("huge", device=CPU, dtype=torch.float32)


def test_every_utterance_is_as_long_as_people_speak_and_says_the_same() -> None:
    short, long = finals_of(small_checkpoint(), 2.0, 6.0)
    assert len(short.tokens) == int(2.0 * TOKENS_PER_SECOND)
    assert len(long.tokens) == int(6.0 * TOKENS_PER_SECOND)
    assert long.tokens[: len(short.tokens)] == short.tokens
    assert len(set(long.tokens)) == len(long.tokens)
    assert len(long.text.split()) == len(long.tokens)


def test_another_seed_says_something_else() -> None:
    (first,), (second,) = (finals_of(small_checkpoint(seed=seed), 3.0) for seed in (1, 2))
    assert first.tokens != second.tokens


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_says_what_float32_says(dtype: torch.dtype) -> None:
    """What is due leads by far more than rounding, so drafts are accepted in every format."""
    (exact,) = finals_of(small_checkpoint(), 6.0)
    (rounded,) = finals_of(small_checkpoint(dtype), 6.0, dtype=dtype)
    assert isfinite(rounded.avg_logprob)
    assert rounded.avg_logprob > -1.0
    assert rounded.tokens == exact.tokens


@pytest.mark.parametrize("layers", [2, 32])
def test_activations_stay_far_from_the_largest_float16(layers: int) -> None:
    dims = replace(DIMS, n_audio_layer=layers)
    checkpoint = random_checkpoint("deep", device=CPU, dtype=torch.float32, dims=dims)
    model = Whisper.from_checkpoint(checkpoint, dtype=torch.float32, device=CPU)
    largest = 0.0

    def watch(_module: object, _inputs: object, output: object) -> None:
        nonlocal largest
        outputs = output if isinstance(output, tuple) else (output,)
        largest = max(largest, *(float(it.abs().max()) for it in outputs if it is not None))

    for module in model.encoder.modules():
        module.register_forward_hook(watch)
    with torch.inference_mode():
        model.encoder(torch.randn(1, dims.n_mels, 400, generator=torch.Generator().manual_seed(0)))
    assert 1.0 < largest < 1000.0


def test_a_random_engine_decodes_a_random_checkpoint() -> None:
    engine = random_engine(
        small_checkpoint(), forced_length_config(num_slots=2), device=CPU, dtype=torch.float32
    )
    audio = random_audio(SAMPLE_RATE)
    ((final,),) = decode_together(engine, [audio], OPTIONS)
    assert len(final.tokens) == int(TOKENS_PER_SECOND)


def test_settings_go_before_those_of_a_forced_length() -> None:
    assert forced_length_config().tokens_per_second == TOKENS_PER_SECOND
    assert forced_length_config().temperatures == (0.0,)
    changed = forced_length_config(tokens_per_second=5.0, num_slots=3)
    assert (changed.tokens_per_second, changed.num_slots) == (5.0, 3)
    assert not changed.repetition_guard


def test_audio_is_as_long_as_asked_and_not_too_loud() -> None:
    audio = random_audio(2500, seed=1)
    assert len(audio) == 2500
    assert audio.dtype == np.float32
    assert 0.0 < abs(audio).max() <= 1.0
