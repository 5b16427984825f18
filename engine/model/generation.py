"""How a checkpoint wants to be decoded: its generation settings, and what Whisper does without.

Decides what holds where `generation_config.json` is silent or missing: then OpenAI's own rules and
published alignment heads apply.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.errors import CheckpointError
from engine.model.dims import ModelDims
from engine.text.tokenizer import Tokenizer

# openai/whisper decoding.py: `max_initial_timestamp` is 1.0 s, a timestamp is 0.02 s.
_OPENAI_MAX_INITIAL_TIMESTAMP: Final = 50

# Cross-attention heads that follow the audio, as layer:head (openai/whisper `__init__.py`).
_ALIGNMENT_HEADS: Final = {
    "tiny.en": "1:0 2:0 2:5 3:0 3:1 3:2 3:3 3:4",
    "tiny": "2:2 3:0 3:2 3:3 3:4 3:5",
    "base.en": "3:3 4:7 5:1 5:5 5:7",
    "base": "3:1 4:2 4:3 4:7 5:1 5:2 5:4 5:6",
    "small.en": "6:6 7:0 7:3 7:8 8:2 8:5 8:7 9:0 9:4 9:8 9:10 10:0 10:1 10:2 10:3 10:6 10:11 "
    "11:2 11:4",
    "small": "5:3 5:9 8:0 8:4 8:7 8:8 9:0 9:7 9:9 10:5",
    "medium.en": "11:4 14:1 14:12 14:14 15:4 16:0 16:4 16:9 17:12 17:14 18:7 18:10 18:15 20:0 "
    "20:3 20:9 20:14 21:12",
    "medium": "13:15 15:4 15:15 16:1 20:0 23:4",
    "large-v1": "9:19 11:2 11:4 11:17 22:7 22:11 22:17 23:2 23:15",
    "large-v2": "10:12 13:17 16:11 16:12 16:13 17:15 17:16 18:4 18:11 18:19 19:11 21:2 21:3 "
    "22:3 22:9 22:12 23:5 23:7 23:13 25:5 26:1 26:12 27:15",
    "large-v3": "7:0 10:17 12:18 13:12 16:1 17:14 19:11 21:4 24:1 25:6",
    "large-v3-turbo": "2:4 2:11 3:3 3:6 3:11 3:14",
}

_PUBLISHED_ALIASES: Final = {"large": "large-v3", "turbo": "large-v3-turbo"}


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """How the checkpoint wants to be decoded; token ids throughout.

    `language` is the one the checkpoint always uses (an English-only model's `en`, or the
    file's own default); None: it is told or detected. `max_initial_timestamp_index` limits the
    first timestamp (20 ms each); None: no limit. `alignment_heads` are (layer, head) pairs of
    decoder cross-attention.
    """

    suppress_tokens: tuple[int, ...]
    begin_suppress_tokens: tuple[int, ...]
    is_multilingual: bool
    lang_to_id: dict[str, int]
    language: str | None
    max_initial_timestamp_index: int | None
    alignment_heads: tuple[tuple[int, int], ...]


def generation_defaults(
    name: str,
    dims: ModelDims,
    tokenizer: Tokenizer,
    config: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
) -> GenerationDefaults:
    """The file's own settings as `transformers` reads them; without a file, OpenAI's."""
    openai = {
        "suppress_tokens": (
            *tokenizer.non_speech_tokens,
            *(tokenizer.sot, tokenizer.translate, tokenizer.transcribe),
            *(tokenizer.sot_lm, tokenizer.sot_prev, tokenizer.no_speech),
        ),
        "begin_suppress_tokens": (*tokenizer.encode(" "), tokenizer.eot),
    }
    if settings is None:
        # config.json had these two lists before there was a generation_config.json.
        settings = {
            key: default if config.get(key) is None else config[key]
            for key, default in openai.items()
        }
        settings["max_initial_timestamp_index"] = _OPENAI_MAX_INITIAL_TIMESTAMP
    language = str(settings.get("language") or "").strip("<|>")
    if not tokenizer.is_multilingual:
        language = "en"
    return GenerationDefaults(
        suppress_tokens=_token_ids(settings.get("suppress_tokens"), dims.n_vocab),
        begin_suppress_tokens=_token_ids(settings.get("begin_suppress_tokens"), dims.n_vocab),
        is_multilingual=tokenizer.is_multilingual,
        lang_to_id=tokenizer.languages,
        language=language if language in tokenizer.languages else None,
        max_initial_timestamp_index=settings.get("max_initial_timestamp_index"),
        alignment_heads=_alignment_heads(name, dims, settings.get("alignment_heads")),
    )


def _token_ids(listed: Collection[int] | None, n_vocab: int) -> tuple[int, ...]:
    """In order, once each; ids that the model lacks (OpenAI writes -1) are left out."""
    return tuple(sorted({token for token in listed or () if 0 <= token < n_vocab}))


def _alignment_heads(
    name: str, dims: ModelDims, listed: Collection[Collection[int]] | None
) -> tuple[tuple[int, int], ...]:
    """The file's heads, else the published ones of that name, else OpenAI's guess.

    OpenAI's guess is every head of the upper half of the layers.
    """
    num_layers, num_heads = dims.n_text_layer, dims.n_text_head
    if listed:
        heads = tuple((int(layer), int(head)) for layer, head in listed)
        for layer, head in heads:
            if not (0 <= layer < num_layers and 0 <= head < num_heads):
                raise CheckpointError(
                    f"alignment_heads: expected layers below {num_layers} and heads below "
                    f"{num_heads}, found {[layer, head]}"
                )
        return heads
    short = name.rpartition("/")[2].removeprefix("whisper-")
    published = _ALIGNMENT_HEADS.get(_PUBLISHED_ALIASES.get(short, short), "")
    heads = tuple((int(a), int(b)) for a, b in (pair.split(":") for pair in published.split()))
    # A file may have any name: its sizes decide whether it can be the published model.
    if heads and all(layer < num_layers and head < num_heads for layer, head in heads):
        return heads
    return tuple(
        (layer, head) for layer in range(num_layers // 2, num_layers) for head in range(num_heads)
    )
