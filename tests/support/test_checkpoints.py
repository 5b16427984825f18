"""The test bench tested: its checkpoints behave like Whisper's, and its reference is raw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkpoints import (
    SHAPES,
    make_checkpoint,
    make_features,
    one_thread,
    reference_decode,
    reference_generate,
    reference_model,
)

Maker = Callable[[str], Path]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    made: dict[str, Path] = {}

    def make(shape: str) -> Path:
        if shape not in made:
            directory = tmp_path_factory.mktemp(shape)
            made[shape] = make_checkpoint(directory, shape, seed=2, encoder_layers=2)
        return made[shape]

    return make


def options(shape: str) -> dict[str, Any]:
    return {"language": "en"} if SHAPES[shape].is_multilingual else {}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_decodes_varied_tokens_that_depend_on_the_audio(
    checkpoint: Maker, shape: str
) -> None:
    directory = checkpoint(shape)
    features = make_features(3, SHAPES[shape].num_mels, seed=3)
    decoded = reference_decode(directory, features, **options(shape))
    assert len({tuple(reference.tokens) for reference in decoded}) == len(features)
    assert len({token for reference in decoded for token in reference.tokens}) >= 10
    margins = sorted(margin for reference in decoded for margin in reference.margins)
    assert margins[len(margins) // 10] > 1e-3


@pytest.mark.parametrize("shape", ["tiny.en", "base"])
def test_the_reference_is_what_public_generate_returns_without_timestamps(
    checkpoint: Maker, shape: str
) -> None:
    directory = checkpoint(shape)
    features = make_features(2, SHAPES[shape].num_mels, seed=4)
    raw = reference_generate(directory, features, **options(shape))
    model = reference_model(directory)
    for window, tokens in zip(features, raw, strict=True):
        with one_thread():
            public = model.generate(window[None], max_new_tokens=40, **options(shape))
        assert public[0].tolist() == tokens


def test_prefixes_are_whisper_s(checkpoint: Maker) -> None:
    base, tiny_en = checkpoint("base"), checkpoint("tiny.en")
    ids = reference_model(base).generation_config
    sot, notimestamps = ids.decoder_start_token_id, ids.no_timestamps_token_id
    german, translate = ids.lang_to_id["<|de|>"], ids.task_to_id["translate"]
    window = make_features(1, 80)

    def prefix(directory: Path, **kw: Any) -> list[int]:
        return reference_decode(directory, window, max_new_tokens=2, **kw)[0].prefix

    assert prefix(base, language="de", task="translate") == [sot, german, translate, notimestamps]
    assert prefix(base, language="de", timestamps=True)[:2] == [sot, german]
    prompt = [ids.prev_sot_token_id, 5, 6, 7]
    assert prefix(base, language="de", prompt_ids=prompt)[:5] == [*prompt, sot]
    english = reference_model(tiny_en).generation_config
    assert prefix(tiny_en) == [english.decoder_start_token_id, english.no_timestamps_token_id]
    assert prefix(tiny_en, timestamps=True) == [english.decoder_start_token_id]


def test_raw_tokens_with_timestamps_obey_whisper_s_rules(checkpoint: Maker) -> None:
    directory = checkpoint("base")
    begin = reference_model(directory).generation_config.no_timestamps_token_id + 1
    features = make_features(3, 80, seed=5)
    decoded = reference_decode(directory, features, language="en", timestamps=True)
    for reference in decoded:
        timestamps = [token for token in reference.tokens if token >= begin]
        assert begin <= reference.tokens[0] <= begin + 50
        assert timestamps == sorted(timestamps)
    assert any(sum(token >= begin for token in r.tokens) > 2 for r in decoded)


def test_some_hypotheses_end_by_themselves(checkpoint: Maker) -> None:
    directory = checkpoint("base")
    decoded = reference_decode(
        directory, make_features(3, 80, seed=6), language="en", max_new_tokens=200
    )
    assert any(reference.ended for reference in decoded)
    for reference in decoded:
        assert len(reference.margins) == len(reference.tokens) + reference.ended
