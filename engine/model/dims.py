"""The sizes of a Whisper model, under the names that OpenAI's checkpoints give them.

Decides whether a checkpoint's configuration describes a Whisper that this engine computes:
anything that would change the arithmetic (another activation, scaled embeddings, another
context) is refused here, by name, instead of becoming wrong text later.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.audio.units import MAX_WINDOW_POSITIONS
from engine.errors import CheckpointError

# OpenAI's `.pt` files leave these two out: whisper/model.py has `n_mlp = n_state * 4`.
_MLP_RATIO: Final = 4

_HF_NAMES: Final = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_audio_mlp": "encoder_ffn_dim",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
    "n_text_mlp": "decoder_ffn_dim",
}

# What `transformers` assumes where config.json is silent; other values are not Whisper's.
_HF_FIXED: Final = {
    "activation_function": "gelu",
    "scale_embedding": False,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, slots=True)
class ModelDims:
    """Sizes of one checkpoint: contexts in positions, the rest in units of their own.

    The mel input of the encoder has `2 * n_audio_ctx` frames of `n_mels` bins; states are
    vector widths, heads divide them. Raises CheckpointError for sizes no Whisper can have.
    """

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_audio_mlp: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int
    n_text_mlp: int

    def __post_init__(self) -> None:
        for field in _HF_NAMES:
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CheckpointError(f"{field}: expected a whole number above 0, found {value!r}")
        if self.n_audio_ctx != MAX_WINDOW_POSITIONS:
            raise CheckpointError(
                f"n_audio_ctx: expected {MAX_WINDOW_POSITIONS} (30 s), found {self.n_audio_ctx}"
            )
        if self.n_audio_state != self.n_text_state:
            raise CheckpointError(
                f"n_text_state: expected {self.n_audio_state}, the n_audio_state that "
                f"cross-attention reads, found {self.n_text_state}"
            )
        for heads, state in (("n_audio_head", "n_audio_state"), ("n_text_head", "n_text_state")):
            if getattr(self, state) % getattr(self, heads):
                raise CheckpointError(
                    f"{heads}: expected a divisor of {state} ({getattr(self, state)}), "
                    f"found {getattr(self, heads)}"
                )
        if self.n_audio_state % 2:
            raise CheckpointError(
                f"n_audio_state: expected an even width (half sines, half cosines), "
                f"found {self.n_audio_state}"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ModelDims":
        """The sizes in a Hugging Face config.json; refuses models that are not Whisper."""
        if (model_type := config.get("model_type")) != "whisper":
            raise CheckpointError(f"model_type: expected 'whisper', found {model_type!r}")
        for field, expected in _HF_FIXED.items():
            if (found := config.get(field, expected)) != expected:
                raise CheckpointError(f"{field}: expected {expected!r}, found {found!r}")
        missing = sorted({hf for hf in _HF_NAMES.values() if hf not in config})
        if missing:
            raise CheckpointError(f"{', '.join(missing)}: expected in config.json, found nothing")
        return cls(**{name: config[hf] for name, hf in _HF_NAMES.items()})

    @classmethod
    def from_openai(cls, dims: Mapping[str, Any]) -> "ModelDims":
        """The sizes in the `dims` of an OpenAI `.pt` file."""
        derived = {"n_audio_mlp": "n_audio_state", "n_text_mlp": "n_text_state"}
        missing = [name for name in _HF_NAMES if name not in derived and name not in dims]
        if missing:
            raise CheckpointError(f"{', '.join(missing)}: expected in dims, found nothing")
        stored = {name: dims[name] for name in _HF_NAMES if name not in derived}
        widths = {mlp: stored[state] * _MLP_RATIO for mlp, state in derived.items()}
        return cls(**stored, **widths)
