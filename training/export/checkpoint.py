"""The `export` command: a run as a Hugging Face checkpoint of Whisper, in float16.

Written without `transformers`, which the engine does not need either; the files are those that
it reads.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from engine.audio.units import (
    FFT_SAMPLES,
    HOP_SAMPLES,
    MAX_WINDOW_FRAMES,
    MAX_WINDOW_SAMPLES,
    SAMPLE_RATE,
)
from engine.model.dims import ModelDims
from engine.text.tokenizer import Tokenizer
from training.errors import RecipeError
from training.export.card import CardFacts, model_card
from training.model.network import GUIDED_HEADS, exported_weights, read_exported
from training.model.state import load_state
from training.vocabulary import TOKENIZER_FILE, load_tokens

_MAX_INITIAL_TIMESTAMP: Final = 50  # 1 s, as OpenAI has it
_READABLE: Final = 0o644


@dataclass(frozen=True, slots=True)
class Traits:
    """What `config.json` says of the checkpoint beside what every Whisper is (engine.traits)."""

    max_window_s: int = 28
    carries_text: bool = False
    timestamps: bool = False
    incremental_partials: bool = False


def export_run(
    run: Path,
    tokenizer: Path,
    target: Path,
    *,
    traits: Traits,
    facts: CardFacts,
    measurements: Mapping[str, Any],
    others: Sequence[Path] = (),
) -> Path:
    """Write the averaged weights of `run` and everything a runtime asks for to `target`.

    `others` are exported checkpoints, of other points of the run or of its like: what is written
    is the mean of all.
    `measurements` has `rows` and `invented` as the JSON of `starling bench wer` has them. Raises
    RecipeError.
    """
    state = load_state(run, torch.device("cpu"))
    if state is None:
        raise RecipeError(f"{run}: expected the state of a run, found none; run `train` first")
    tokens = load_tokens(tokenizer)
    target.mkdir(parents=True, exist_ok=True)
    weights = exported_weights(state.average)
    wholes = [weights, *(read_exported(directory, state.dims) for directory in others)]
    halves = {
        name: torch.stack([whole[name].float() for whole in wholes]).mean(dim=0).half()
        for name in weights
    }
    model = target / "model.safetensors"
    save_file(halves, model, metadata={"format": "pt"})
    model.chmod(_READABLE)  # safetensors lets its owner alone read it
    _write(target / "config.json", model_config(state.dims, tokens, traits))
    _write(target / "generation_config.json", generation_config(state.dims, tokens))
    _write(target / "preprocessor_config.json", preprocessor_config(state.dims))
    _write(target / "tokenizer_config.json", tokenizer_config())
    shutil.copyfile(tokenizer / TOKENIZER_FILE, target / TOKENIZER_FILE)
    size = sum(tensor.numel() for tensor in halves.values())
    card = model_card(facts, state, size, measurements, len(wholes))
    (target / "README.md").write_text(card, "utf-8")
    return target


def model_config(dims: ModelDims, tokens: Tokenizer, traits: Traits) -> dict[str, Any]:
    """`config.json`."""
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "dtype": "float16",
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "is_encoder_decoder": True,
        "use_cache": True,
        "num_mel_bins": dims.n_mels,
        "d_model": dims.n_audio_state,
        "encoder_layers": dims.n_audio_layer,
        "encoder_attention_heads": dims.n_audio_head,
        "encoder_ffn_dim": dims.n_audio_mlp,
        "decoder_layers": dims.n_text_layer,
        "decoder_attention_heads": dims.n_text_head,
        "decoder_ffn_dim": dims.n_text_mlp,
        "max_source_positions": dims.n_audio_ctx,
        "max_target_positions": dims.n_text_ctx,
        "vocab_size": dims.n_vocab,
        **_ends(tokens),
        "decoder_start_token_id": tokens.sot,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "starling": {"trimmed_context": True, **asdict(traits)},
    }


def generation_config(dims: ModelDims, tokens: Tokenizer) -> dict[str, Any]:
    """`generation_config.json`: the guided heads are the ones that follow the audio."""
    first_guided = 0 if dims.n_text_layer == 1 else 1
    return {
        **_ends(tokens),
        "decoder_start_token_id": tokens.sot,
        "max_length": dims.n_text_ctx,
        "max_initial_timestamp_index": _MAX_INITIAL_TIMESTAMP,
        "no_timestamps_token_id": tokens.no_timestamps,
        "prev_sot_token_id": tokens.sot_prev,
        "is_multilingual": True,
        "language": "<|en|>",
        "task": "transcribe",
        "lang_to_id": {f"<|{code}|>": token for code, token in tokens.languages.items()},
        "task_to_id": {"transcribe": tokens.transcribe, "translate": tokens.translate},
        "return_timestamps": False,
        "suppress_tokens": [
            *(tokens.sot, *tokens.languages.values(), tokens.translate, tokens.transcribe),
            *(tokens.sot_lm, tokens.sot_prev, tokens.no_speech),
        ],
        "begin_suppress_tokens": [],
        "alignment_heads": [
            [layer, head]
            for layer in range(first_guided, dims.n_text_layer)
            for head in range(min(GUIDED_HEADS, dims.n_text_head))
        ],
    }


def preprocessor_config(dims: ModelDims) -> dict[str, Any]:
    """`preprocessor_config.json`: Whisper's features."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": dims.n_mels,
        "sampling_rate": SAMPLE_RATE,
        "n_fft": FFT_SAMPLES,
        "hop_length": HOP_SAMPLES,
        "chunk_length": MAX_WINDOW_SAMPLES // SAMPLE_RATE,
        "n_samples": MAX_WINDOW_SAMPLES,
        "nb_max_frames": MAX_WINDOW_FRAMES,
        "padding_side": "right",
        "padding_value": 0.0,
        "dither": 0.0,
        "return_attention_mask": False,
    }


def tokenizer_config() -> dict[str, Any]:
    """`tokenizer_config.json`: which class reads the tokenizer, and what ends a text."""
    end = "<|endoftext|>"
    return {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        **{f"{role}_token": end for role in ("bos", "eos", "unk", "pad")},
    }


def _ends(tokens: Tokenizer) -> dict[str, int]:
    return {f"{role}_token_id": tokens.eot for role in ("bos", "eos", "pad")}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
