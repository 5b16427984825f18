import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.errors import CheckpointError
from engine.model.checkpoint import load_checkpoint
from tests.support.checkpoints import make_checkpoint


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("made") / "base", "base", head_dim=4)


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def test_alignment_heads_of_unknown_models_are_the_upper_half(copy: Path) -> None:
    settings = json.loads((copy / "generation_config.json").read_text("utf-8"))
    del settings["alignment_heads"]
    (copy / "generation_config.json").write_text(json.dumps(settings), "utf-8")
    heads = load_checkpoint(copy).generation.alignment_heads
    assert heads == tuple((layer, head) for layer in (3, 4, 5) for head in range(8))


def test_without_generation_settings_the_older_lists_of_the_config_count(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    derived = load_checkpoint(copy)
    assert not derived.generation.is_multilingual  # by the number of tokens
    assert derived.tokenizer.eot in derived.generation.begin_suppress_tokens
    change_json(copy / "config.json", suppress_tokens=[3, 1, -1], begin_suppress_tokens=[2])
    listed = load_checkpoint(copy).generation
    assert listed.suppress_tokens == (1, 3)
    assert listed.begin_suppress_tokens == (2,)


def test_alignment_heads_beyond_the_model_are_refused(copy: Path) -> None:
    change_json(copy / "generation_config.json", alignment_heads=[[9, 0]])
    with pytest.raises(CheckpointError, match=r"layers below 6 .*, found \[9, 0\]"):
        load_checkpoint(copy)


def test_generation_settings_are_the_file_s(base: Path) -> None:
    generation = load_checkpoint(base).generation
    stored = json.loads((base / "generation_config.json").read_text("utf-8"))
    assert generation.suppress_tokens == tuple(sorted(stored["suppress_tokens"]))
    assert generation.begin_suppress_tokens == tuple(sorted(stored["begin_suppress_tokens"]))
    assert generation.alignment_heads == tuple(map(tuple, stored["alignment_heads"]))
    assert generation.max_initial_timestamp_index == stored["max_initial_timestamp_index"]
    assert {f"<|{code}|>": i for code, i in generation.lang_to_id.items()} == stored["lang_to_id"]
    assert generation.is_multilingual
    assert generation.language is None
