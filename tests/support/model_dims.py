"""Sizes of models that are as small as a test wants them."""

from typing import Any

from engine.audio.units import MAX_WINDOW_POSITIONS
from engine.model.dims import ModelDims


def small_dims(**sizes: Any) -> ModelDims:
    """A Whisper of one layer and two heads on either side, where `sizes` do not say otherwise."""
    defaults: dict[str, int] = {
        "n_mels": 8,
        "n_audio_ctx": MAX_WINDOW_POSITIONS,
        "n_audio_state": 8,
        "n_audio_head": 2,
        "n_audio_layer": 1,
        "n_audio_mlp": 16,
        "n_vocab": 30,
        "n_text_ctx": 16,
        "n_text_state": 8,
        "n_text_head": 2,
        "n_text_layer": 1,
        "n_text_mlp": 16,
    }
    return ModelDims(**{**defaults, **sizes})
