import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import CheckpointError
from engine.model.checkpoint import expected_shapes, load_checkpoint
from engine.model.dims import ModelDims
from tests.support.checkpoints import make_checkpoint, openai_pt, reference_model

EMBEDDED = Path(__file__).parents[3] / "engine" / "embedded"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("made") / "base", "base", head_dim=4)


@pytest.fixture(scope="module")
def tiny_en(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("made") / "tiny.en", "tiny.en", head_dim=4)


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def change_weights(directory: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file(tensors, directory / WEIGHTS)


def shard(directory: Path, suffix: str, save: Callable[[dict[str, Tensor], Path], None]) -> None:
    """The weights again in two files and an index, as the large models are published."""
    tensors = load_file(directory / WEIGHTS)
    (directory / WEIGHTS).unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    where = {name: names[i % 2] for i, name in enumerate(sorted(tensors))}
    for file in names:
        save({n: t for n, t in tensors.items() if where[n] == file}, directory / file)
    index = directory / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}), "utf-8")


def test_weights_are_those_that_transformers_loads_under_canonical_names(base: Path) -> None:
    checkpoint = load_checkpoint(base)
    expected = reference_model(base).model.state_dict()
    assert checkpoint.weights.keys() == expected.keys()
    for name, tensor in checkpoint.weights.items():
        assert torch.equal(tensor, expected[name]), name
    assert checkpoint.name == "base"
    assert not checkpoint.traits.trimmed_context


def test_expected_shapes_are_those_of_transformers(base: Path) -> None:
    config = json.loads((base / "config.json").read_text("utf-8"))
    expected = reference_model(base).model.state_dict()
    assert expected_shapes(ModelDims.from_config(config)) == {
        name: tuple(tensor.shape) for name, tensor in expected.items()
    }


def test_an_english_only_checkpoint_always_uses_english(tiny_en: Path) -> None:
    checkpoint = load_checkpoint(tiny_en)
    assert not checkpoint.generation.is_multilingual
    assert checkpoint.generation.language == "en"
    assert list(checkpoint.tokenizer.languages) == ["en"]


def test_the_embedded_checkpoint_loads(caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = load_checkpoint(EMBEDDED)
    assert checkpoint.traits.trimmed_context
    assert checkpoint.generation.language == "en"
    assert checkpoint.generation.is_multilingual
    assert checkpoint.dims.n_vocab == 3046
    assert checkpoint.weights["encoder.conv1.weight"].dtype == torch.float16
    assert not caplog.records


def test_shards_make_the_same_checkpoint(base: Path, copy: Path) -> None:
    shard(copy, "safetensors", save_file)
    assert same_weights(base, copy)


def test_pickled_weights_make_the_same_checkpoint(base: Path, copy: Path) -> None:
    torch.save(load_file(copy / WEIGHTS), copy / "pytorch_model.bin")
    (copy / WEIGHTS).unlink()
    assert same_weights(base, copy)


def test_pickled_shards_make_the_same_checkpoint(base: Path, copy: Path) -> None:
    shard(copy, "bin", lambda tensors, path: torch.save(tensors, path))
    assert same_weights(base, copy)


def same_weights(one: Path, other: Path) -> bool:
    expected, found = load_checkpoint(one).weights, load_checkpoint(other).weights
    return expected.keys() == found.keys() and all(
        torch.equal(expected[name], found[name]) for name in expected
    )


def test_an_openai_file_is_the_same_checkpoint(base: Path, copy: Path) -> None:
    path = openai_pt(copy)
    expected, found = load_checkpoint(base), load_checkpoint(path)
    assert found.dims == expected.dims
    assert found.generation == expected.generation
    assert found.tokenizer.encode(" What did you say?") == expected.tokenizer.encode(
        " What did you say?"
    )
    assert found.name == "model"
    assert found.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        assert torch.equal(found.weights[name], tensor), name


def test_an_openai_file_alone_gets_openai_s_rules(base: Path, copy: Path, tmp_path: Path) -> None:
    path = openai_pt(copy)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(path, alone / "tiny.pt")
    shutil.copy(base / "tokenizer.json", alone)
    checkpoint = load_checkpoint(alone / "tiny.pt")
    generation, tokenizer = checkpoint.generation, checkpoint.tokenizer
    assert checkpoint.name == "tiny"
    assert {*tokenizer.non_speech_tokens, tokenizer.sot, tokenizer.sot_prev} <= {
        *generation.suppress_tokens
    }
    assert generation.begin_suppress_tokens == (*tokenizer.encode(" "), tokenizer.eot)
    assert generation.max_initial_timestamp_index == 50
    assert generation.alignment_heads == ((2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5))


def test_a_snapshot_in_the_hub_cache_is_named_after_its_repository(
    base: Path, tmp_path: Path
) -> None:
    snapshot = tmp_path / "models--openai--whisper-base" / "snapshots" / "abc"
    shutil.copytree(base, snapshot)
    assert load_checkpoint(snapshot).name == "openai/whisper-base"


def test_the_tied_output_may_be_stored_under_either_name_or_both(base: Path, copy: Path) -> None:
    def both(tensors: dict[str, Tensor]) -> None:
        tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"].clone()

    change_weights(copy, both)
    assert same_weights(base, copy)
    change_weights(copy, lambda tensors: void(tensors.pop("model.decoder.embed_tokens.weight")))
    assert same_weights(base, copy)


def void(_: object) -> None:
    return None


def test_an_output_of_its_own_is_refused(copy: Path) -> None:
    def untie(tensors: dict[str, Tensor]) -> None:
        tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"] + 1

    change_weights(copy, untie)
    with pytest.raises(CheckpointError, match=r"proj_out\.weight: expected the values of"):
        load_checkpoint(copy)


def test_a_missing_tensor_is_named(copy: Path) -> None:
    name = "encoder.layers.3.fc1.bias"
    change_weights(copy, lambda tensors: void(tensors.pop(f"model.{name}")))
    with pytest.raises(CheckpointError, match=f"1 of .* tensors missing, first of them {name}"):
        load_checkpoint(copy)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(copy: Path) -> None:
    def cut(tensors: dict[str, Tensor]) -> None:
        tensors["model.encoder.conv1.weight"] = torch.zeros(32, 128, 3)

    change_weights(copy, cut)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(copy)
    message = str(caught.value)
    assert str(copy / WEIGHTS) in message
    assert "model.encoder.conv1.weight: expected shape (32, 80, 3), found (32, 128, 3)" in message


def test_a_quantised_tensor_is_refused(copy: Path) -> None:
    def quantise(tensors: dict[str, Tensor]) -> None:
        tensors["model.decoder.layers.0.fc1.bias"] = torch.zeros(128, dtype=torch.int8)

    change_weights(copy, quantise)
    with pytest.raises(CheckpointError, match=r"expected one of float32.*found torch\.int8"):
        load_checkpoint(copy)


def test_a_layer_too_many_is_refused(copy: Path) -> None:
    change_json(copy / "config.json", decoder_layers=5)
    with pytest.raises(CheckpointError, match="expected 5 decoder layers, found more"):
        load_checkpoint(copy)


def test_unknown_extras_are_left_out_and_logged(
    base: Path, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change_weights(copy, lambda tensors: tensors.update(alignment_heads=torch.zeros(2)))
    with caplog.at_level(logging.WARNING):
        assert same_weights(base, copy)
    assert "1 tensors left unused: ['alignment_heads']" in caplog.text


@pytest.mark.parametrize("keep_bytes", [0, 5, 5000, -1000])
def test_truncated_weights_are_named(copy: Path, keep_bytes: int) -> None:
    path = copy / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep_bytes])
    with pytest.raises(CheckpointError, match="truncated or not safetensors") as caught:
        load_checkpoint(copy)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep_bytes", [0, 5, 5000, -1000])
def test_a_truncated_openai_file_is_named(copy: Path, keep_bytes: int) -> None:
    path = openai_pt(copy)
    path.write_bytes(path.read_bytes()[:keep_bytes])
    with pytest.raises(CheckpointError, match="truncated or not a file of tensors") as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_pickle_that_would_run_code_is_refused(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    torch.save({"model.encoder.conv1.weight": Path.cwd}, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not a file of tensors"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([1, 2], "expected a dict, found list"),
        ({"epoch": 3}, "expected dims and model_state_dict, found epoch"),
        ({"dims": {}, "model_state_dict": {}}, "expected in dims, found nothing"),
    ],
)
def test_another_torch_file_is_refused(tmp_path: Path, stored: object, message: str) -> None:
    torch.save(stored, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "model.pt")


def test_another_model_type_is_named(copy: Path) -> None:
    change_json(copy / "config.json", model_type="wav2vec2")
    with pytest.raises(CheckpointError, match="expected 'whisper', found 'wav2vec2'") as caught:
        load_checkpoint(copy)
    assert str(copy / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("feature_size", 128), ("sampling_rate", 8000), ("hop_length", 320)]
)
def test_another_feature_extractor_is_refused(copy: Path, field: str, value: int) -> None:
    change_json(copy / "preprocessor_config.json", **{field: value})
    with pytest.raises(CheckpointError, match=f"{field}: expected .*, found {value}"):
        load_checkpoint(copy)


def test_a_missing_shard_is_named(copy: Path) -> None:
    shard(copy, "safetensors", save_file)
    gone = copy / "model-00002-of-00002.safetensors"
    gone.unlink()
    with pytest.raises(CheckpointError, match="named by the index, but missing") as caught:
        load_checkpoint(copy)
    assert str(gone) in str(caught.value)


def test_a_path_without_a_model_says_what_is_expected(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"directory or a \.pt file, found nothing"):
        load_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="found another kind of file"):
        load_checkpoint(copy / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"expected config\.json, found none"):
        load_checkpoint(tmp_path)
    (copy / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        load_checkpoint(copy)
