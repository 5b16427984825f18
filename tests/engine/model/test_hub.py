import json
import logging
import socket
from pathlib import Path

import pytest

from engine.errors import CheckpointError
from engine.model.hub import SHORT_NAMES, needed_files, resolve_model, resolve_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = ("config.json", "tokenizer.json", "model.safetensors")


@pytest.fixture
def closed() -> str:
    """The address of a port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def cache(directory: Path, repo: str, *names: str) -> Path:
    """A repository in the hub's own cache layout; returns its snapshot."""
    root = directory / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT, "utf-8")
    for name in names:
        (snapshot / name).write_text("{}", "utf-8")
    return snapshot


def test_the_embedded_model_is_in_the_package() -> None:
    path = resolve_model("embedded", device="cpu", offline=True)
    assert (path / "model.safetensors").is_file()


def test_local_directories_and_files_are_themselves(tmp_path: Path) -> None:
    file = tmp_path / "tiny.pt"
    file.touch()
    assert resolve_model(str(tmp_path), device="cpu") == tmp_path
    assert resolve_model(str(file), device="cpu") == file


def test_a_short_name_wins_over_a_directory_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    snapshot = cache(tmp_path / "hub", "openai/whisper-base", *MODEL)
    assert resolve_model("base", device="cpu", cache_dir=tmp_path / "hub") == snapshot
    assert resolve_model("./base", device="cpu") == Path("base")


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("tiny.en", "openai/whisper-tiny.en"),
        ("large-v1", "openai/whisper-large"),
        ("turbo", "openai/whisper-large-v3-turbo"),
        ("distil-large-v3.5", "distil-whisper/distil-large-v3.5"),
        ("someone/fine-tuned_1.0", "someone/fine-tuned_1.0"),
    ],
)
def test_names_are_found_in_the_cache_without_the_network(
    tmp_path: Path, closed: str, name: str, repo: str
) -> None:
    snapshot = cache(tmp_path, repo, *MODEL)
    found = resolve_model(name, device="cpu", cache_dir=tmp_path, endpoint=closed)
    assert found == snapshot


@pytest.mark.parametrize(("device", "repo"), [("cpu", "base"), ("cuda:0", "large-v3-turbo")])
def test_auto_takes_the_model_of_the_device_from_the_cache(
    tmp_path: Path, closed: str, device: str, repo: str, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = cache(tmp_path, f"openai/whisper-{repo}", *MODEL)
    assert resolve_model("auto", device=device, cache_dir=tmp_path, endpoint=closed) == snapshot
    assert not caplog.records


def test_auto_without_cache_and_network_is_the_embedded_model_and_says_so_once(
    tmp_path: Path, closed: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="engine"):
        found = resolve_model("auto", device="cpu", cache_dir=tmp_path, endpoint=closed)
    assert found == resolve_model("embedded", device="cpu")
    [record] = [record for record in caplog.records if record.name.startswith("engine")]
    message = record.getMessage()
    for word in ("openai/whisper-base", "embedded model", "--model base", "--model DIRECTORY"):
        assert word in message
    assert "\n" not in message


def test_auto_gives_up_on_a_hub_that_never_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.model.hub._AUTO_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = resolve_model("auto", device="cpu", cache_dir=tmp_path, endpoint=endpoint)
    assert found == resolve_model("embedded", device="cpu")


def test_offline_never_asks_the_hub(tmp_path: Path) -> None:
    # Were this endpoint asked, its name would be in the error.
    with pytest.raises(CheckpointError, match="offline mode forbids downloading") as caught:
        resolve_model(
            "tiny", device="cpu", cache_dir=tmp_path, offline=True, endpoint="http://no.invalid"
        )
    assert "no.invalid" not in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("config.json", "tokenizer.json"),
        ("config.json", "model.safetensors"),
        ("config.json", "tokenizer.json", "model.safetensors.index.json"),
    ],
)
def test_an_interrupted_download_is_not_taken_for_a_model(
    tmp_path: Path, closed: str, names: tuple[str, ...]
) -> None:
    snapshot = cache(tmp_path, "openai/whisper-tiny", *names)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    if (path := snapshot / "model.safetensors.index.json").exists():
        path.write_text(json.dumps(index), "utf-8")
    with pytest.raises(CheckpointError, match="the hub gave no copy"):
        resolve_model("tiny", device="cpu", cache_dir=tmp_path, endpoint=closed)


def test_a_failed_download_names_repository_cause_and_remedy(tmp_path: Path, closed: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        resolve_model("someone/model", device="cpu", cache_dir=tmp_path, endpoint=closed)
    message = str(caught.value)
    assert message.startswith("someone/model: not in the local hub cache")
    assert "refused" in message
    assert "hf download someone/model" in message


@pytest.mark.parametrize(
    "name", ["huge", "./missing", "/no/such/directory", "missing/model.pt", ""]
)
def test_an_unknown_name_gives_the_accepted_ones(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        resolve_model(name, device="cpu", offline=True)
    assert repr(name) in str(caught.value)
    for accepted in ("auto", "embedded", ".pt", *SHORT_NAMES):
        assert accepted in str(caught.value)


def test_only_one_form_of_the_weights_is_needed() -> None:
    published = [
        ".gitattributes",
        "README.md",
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
        "flax_model.msgpack",
        "tf_model.h5",
        "onnx/model.onnx",
        "pytorch_model.bin",
        "model.fp32-00001-of-00002.safetensors",
        "model.safetensors.index.fp32.json",
    ]
    small = published[2:9]
    assert sorted(needed_files([*published, "model.safetensors"])) == sorted(
        [*small, "model.safetensors"]
    )
    assert sorted(needed_files(published)) == sorted([*small, "pytorch_model.bin"])
    shards = [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert sorted(needed_files([*published, *shards])) == sorted([*small, *shards])
    assert needed_files(["config.json", "flax_model.msgpack"]) == []


def test_an_index_may_not_point_outside_its_directory(tmp_path: Path, closed: str) -> None:
    snapshot = cache(tmp_path, "openai/whisper-tiny", "config.json", "tokenizer.json")
    index = {"weight_map": {"a": "../../../secret"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(CheckpointError, match=r"expected plain file names, found '\.\./"):
        resolve_model("tiny", device="cpu", cache_dir=tmp_path, endpoint=closed)


def test_tokenizers_of_openai_files_are_chosen_by_vocabulary(tmp_path: Path) -> None:
    for n_vocab, repo in (
        (51_864, "openai/whisper-tiny.en"),
        (51_865, "openai/whisper-tiny"),
        (51_866, "openai/whisper-large-v3"),
    ):
        snapshot = cache(tmp_path, repo, "tokenizer.json")
        assert resolve_tokenizer(n_vocab, cache_dir=tmp_path, offline=True) == snapshot
    with pytest.raises(CheckpointError, match="1000 is none of the published vocabularies"):
        resolve_tokenizer(1000, cache_dir=tmp_path, offline=True)
