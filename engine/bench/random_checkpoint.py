"""Checkpoints of published sizes with random weights: for timing where nothing can be downloaded.

What a model says takes the same time whatever it is, as long as it is as long and as sure. So
these say a fixed sequence of made-up words, one token each, surely and without end: each position
of the decoder leans towards the embedding of the token that is due there. Every matrix is
multiplied as in a trained model, all layers, all heads, the whole vocabulary. But the last matrix
of cross-attention is zero, so that what is said does not depend on the audio.

Two things follow. Successive hypotheses of a growing window agree, so drafts are accepted whole;
a trained model on clear speech takes the last word or two of a draft back, which costs it a pass
or two more. And no hypothesis ends by itself: `forced_length_config` gives each as many tokens as
people speak in that time.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from math import inf, sqrt
from string import ascii_lowercase
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from engine.assembly import Engine, assemble, warm_up
from engine.audio.units import MAX_WINDOW_POSITIONS
from engine.config import EngineConfig, QualityThresholds
from engine.errors import ConfigError
from engine.model.checkpoint import Checkpoint, expected_shapes
from engine.model.dims import ModelDims
from engine.model.generation import GenerationDefaults, generation_defaults
from engine.text.tokenizer import MULTILINGUAL_NUM_TOKENS, Tokenizer
from engine.text.vocabulary import (
    LANGUAGE_CODES,
    NUM_TIMESTAMPS,
    SPECIALS_AFTER_LANGUAGES,
    SPECIALS_BEFORE_LANGUAGES,
    Vocabulary,
    piece_bytes,
)
from engine.traits import CheckpointTraits

# Fast conversational English: 2.7 words a second, 1.3 tokens each.
TOKENS_PER_SECOND: Final = 3.5

_NUM_BYTES: Final = 256
_LETTERS: Final = 4  # of a word: 26 ** 4 are more than any vocabulary has
_LEAD: Final = 20.0  # logits by which the token that is due leads, about
_RESIDUAL_GAIN: Final = 0.3  # what all layers together add to a position of size 1


def _dims(n_mels: int, state: int, heads: int, layers: int, text_layers: int) -> ModelDims:
    return ModelDims(
        n_mels=n_mels,
        n_audio_ctx=MAX_WINDOW_POSITIONS,
        n_audio_state=state,
        n_audio_head=heads,
        n_audio_layer=layers,
        n_audio_mlp=4 * state,
        n_vocab=MULTILINGUAL_NUM_TOKENS + (n_mels > 80),  # large-v3 has Cantonese
        n_text_ctx=448,
        n_text_state=state,
        n_text_head=heads,
        n_text_layer=text_layers,
        n_text_mlp=4 * state,
    )


# The multilingual models (openai/whisper README.md, and the dims in its files).
PUBLISHED: Final[Mapping[str, ModelDims]] = {
    "tiny": _dims(80, 384, 6, 4, 4),
    "base": _dims(80, 512, 8, 6, 6),
    "small": _dims(80, 768, 12, 12, 12),
    "medium": _dims(80, 1024, 16, 24, 24),
    "large-v3": _dims(128, 1280, 20, 32, 32),
    "large-v3-turbo": _dims(128, 1280, 20, 32, 4),
}


def random_checkpoint(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
    decoder_layers: int | None = None,
    dims: ModelDims | None = None,
) -> Checkpoint:
    """A checkpoint of the size that PUBLISHED has under `name`, or of `dims` if given.

    `decoder_layers` in place of its own. Unlike a loaded one its weights are on `device` in
    `dtype` already. Raises ConfigError for a name that is not there, and for a vocabulary that
    leaves no room for words.
    """
    if dims is None:
        if name not in PUBLISHED:
            raise ConfigError(f"model: got {name!r}, accepted are {', '.join(PUBLISHED)}")
        dims = PUBLISHED[name]
    if decoder_layers is not None:
        dims = replace(dims, n_text_layer=decoder_layers)
    tokenizer = make_tokenizer(dims.n_vocab)
    return Checkpoint(
        name=f"random {name}",
        dims=dims,
        weights=_make_weights(dims, _words_due(tokenizer, dims, seed), device, dtype, seed),
        generation=_endless(generation_defaults(name, dims, tokenizer, {}, None), tokenizer),
        tokenizer=tokenizer,
        traits=CheckpointTraits(),
    )


def make_tokenizer(n_vocab: int) -> Tokenizer:
    """A multilingual tokenizer of `n_vocab` tokens: bytes, made-up words, Whisper's specials.

    Raises ConfigError where there is no room for words.
    """
    languages = LANGUAGE_CODES if n_vocab > MULTILINGUAL_NUM_TOKENS else LANGUAGE_CODES[:-1]
    specials = (
        *SPECIALS_BEFORE_LANGUAGES,
        *(f"<|{code}|>" for code in languages),
        *SPECIALS_AFTER_LANGUAGES,
    )
    num_others = _NUM_BYTES + len(specials) + NUM_TIMESTAMPS
    if n_vocab <= num_others:
        raise ConfigError(f"n_vocab: got {n_vocab}, the least accepted is {num_others + 1}")
    ids = {piece: piece_bytes(piece)[0] for piece in ByteLevel.alphabet()}
    (space,) = (piece for piece, value in ids.items() if value == ord(" "))
    words = islice(product(ascii_lowercase, repeat=_LETTERS), n_vocab - num_others)
    ids |= {space + "".join(word): _NUM_BYTES + i for i, word in enumerate(words)}
    return Tokenizer(
        Vocabulary(ids, [], {special: len(ids) + i for i, special in enumerate(specials)}),
        name=f"made for {n_vocab} tokens",
        n_vocab=n_vocab,
        languages=None,
        is_multilingual=True,
    )


def forced_length_config(**settings: Any) -> EngineConfig:
    """Settings under which a random checkpoint says TOKENS_PER_SECOND and is believed.

    No hypothesis is dropped, tried again or ended early. `settings` are EngineConfig's own and
    go before these. Raises ConfigError.
    """
    forced: dict[str, Any] = {
        "base_tokens": 0,
        "tokens_per_second": TOKENS_PER_SECOND,
        "repetition_guard": False,
        "temperatures": (0.0,),
        "thresholds": QualityThresholds(compression_ratio=inf, avg_logprob=-inf, no_speech=2.0),
    }
    return EngineConfig(**(forced | settings))


def random_engine(
    checkpoint: Checkpoint, config: EngineConfig, *, device: torch.device, dtype: torch.dtype
) -> Engine:
    """An engine around a checkpoint in memory, warmed up as a server's is."""
    engine = assemble(checkpoint, config, device=device, dtype=dtype)
    warm_up(engine.runner, checkpoint)
    return engine


def random_audio(num_samples: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Bursts of noise [num_samples], float32 within [-1, 1], as loud as speech."""
    generator = np.random.default_rng(seed)
    burst = 1600  # samples: a syllable
    loudness = np.repeat(generator.uniform(0.0, 0.2, -(-num_samples // burst)), burst)
    noise = generator.uniform(-1.0, 1.0, num_samples) * loudness[:num_samples]
    return noise.astype(np.float32)


def _endless(generation: GenerationDefaults, tokenizer: Tokenizer) -> GenerationDefaults:
    """The same, but that the end of text is never chosen."""
    return replace(generation, suppress_tokens=(*generation.suppress_tokens, tokenizer.eot))


def _words_due(tokenizer: Tokenizer, dims: ModelDims, seed: int) -> list[int]:
    """The token that is said at each position [n_text_ctx]; none again before all were said."""
    words = list(range(_NUM_BYTES, tokenizer.eot))
    random.Random(seed).shuffle(words)
    return [words[position % len(words)] for position in range(dims.n_text_ctx)]


def _make_weights(
    dims: ModelDims, due: Sequence[int], device: torch.device, dtype: torch.dtype, seed: int
) -> dict[str, Tensor]:
    """Every tensor of the model, under the names of a loaded checkpoint.

    Vectors keep the size that a layer norm gives them; what layers add to the residual stream
    stays small beside the positions however many there are, so that float16 holds all of it.
    """
    generator = torch.Generator(device).manual_seed(seed)
    layers = {"encoder": dims.n_audio_layer, "decoder": dims.n_text_layer}
    embedding_std = _LEAD / dims.n_text_state
    weights: dict[str, Tensor] = {}
    for name, shape in expected_shapes(dims).items():
        if name.endswith("bias") or "encoder_attn.out_proj" in name:
            weights[name] = torch.zeros(shape, dtype=dtype, device=device)
            continue
        if "layer_norm" in name:
            weights[name] = torch.ones(shape, dtype=dtype, device=device)
            continue
        std = 1.0
        if "embed_tokens" in name:
            std = embedding_std
        elif "embed_positions" not in name:
            std = 1 / sqrt(torch.Size(shape[1:]).numel())  # as many inputs are added up
        if "out_proj" in name or "fc2" in name:
            std *= _RESIDUAL_GAIN / sqrt(layers[name.partition(".")[0]])
        tensor = torch.empty(shape, dtype=dtype, device=device)
        weights[name] = tensor.normal_(std=std, generator=generator)
    embedding = weights["decoder.embed_tokens.weight"]
    weights["decoder.embed_positions.weight"] = embedding[list(due)] / embedding_std
    return weights
