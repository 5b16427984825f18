from typing import Any

import pytest

from engine.errors import CheckpointError
from engine.model.dims import ModelDims

# openai/whisper-tiny, in both of its forms.
CONFIG: dict[str, Any] = {
    "model_type": "whisper",
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "d_model": 384,
    "encoder_attention_heads": 6,
    "encoder_layers": 4,
    "encoder_ffn_dim": 1536,
    "vocab_size": 51865,
    "max_target_positions": 448,
    "decoder_attention_heads": 6,
    "decoder_layers": 4,
    "decoder_ffn_dim": 1536,
}
OPENAI = {
    "n_mels": 80,
    "n_vocab": 51865,
    "n_audio_ctx": 1500,
    "n_audio_state": 384,
    "n_audio_head": 6,
    "n_audio_layer": 4,
    "n_text_ctx": 448,
    "n_text_state": 384,
    "n_text_head": 6,
    "n_text_layer": 4,
}


def test_both_forms_of_one_model_have_the_same_sizes() -> None:
    dims = ModelDims.from_config(CONFIG)
    assert dims == ModelDims.from_openai(OPENAI)
    assert (dims.n_mels, dims.n_audio_mlp, dims.n_text_mlp, dims.n_vocab) == (80, 1536, 1536, 51865)


def test_every_size_comes_from_its_own_field() -> None:
    config = CONFIG | {
        "encoder_layers": 32,
        "decoder_layers": 2,
        "encoder_attention_heads": 12,
        "decoder_attention_heads": 8,
        "encoder_ffn_dim": 100,
        "decoder_ffn_dim": 200,
        "max_target_positions": 64,
    }
    dims = ModelDims.from_config(config)
    assert (dims.n_audio_layer, dims.n_text_layer) == (32, 2)
    assert (dims.n_audio_head, dims.n_text_head) == (12, 8)
    assert (dims.n_audio_mlp, dims.n_text_mlp) == (100, 200)
    assert (dims.n_audio_ctx, dims.n_text_ctx) == (1500, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "wav2vec2"}, "model_type: expected 'whisper', found 'wav2vec2'"),
        ({"model_type": None}, "model_type: expected 'whisper', found None"),
        ({"activation_function": "relu"}, "activation_function: expected 'gelu', found 'relu'"),
        ({"scale_embedding": True}, "scale_embedding: expected False, found True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings: expected True, found False"),
        ({"max_source_positions": 750}, r"n_audio_ctx: expected 1500 \(30 s\), found 750"),
        ({"encoder_attention_heads": 7}, "n_audio_head: expected a divisor of n_audio_state"),
        ({"decoder_attention_heads": 5}, r"n_text_head: expected a divisor .*384.*, found 5"),
        ({"d_model": 3, "encoder_attention_heads": 1, "decoder_attention_heads": 1}, "even width"),
        ({"vocab_size": 0}, "n_vocab: expected a whole number above 0, found 0"),
        ({"num_mel_bins": "80"}, "n_mels: expected a whole number above 0, found '80'"),
        ({"decoder_layers": True}, "n_text_layer: expected a whole number above 0, found True"),
    ],
)
def test_a_config_of_another_model_is_refused_by_field(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        ModelDims.from_config(CONFIG | change)


def test_missing_fields_are_named_together() -> None:
    config = {key: CONFIG[key] for key in CONFIG if key not in ("d_model", "vocab_size")}
    with pytest.raises(CheckpointError, match=r"d_model, vocab_size: expected in config\.json"):
        ModelDims.from_config(config)
    dims = {key: OPENAI[key] for key in OPENAI if key != "n_text_head"}
    with pytest.raises(CheckpointError, match="n_text_head: expected in dims, found nothing"):
        ModelDims.from_openai(dims)


def test_a_decoder_of_another_width_than_the_encoder_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"n_text_state: expected 384.*found 192"):
        ModelDims.from_openai(OPENAI | {"n_text_state": 192})
