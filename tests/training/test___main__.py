"""The miniature: every command, from sentences to a checkpoint that two runtimes load."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.assembly import assemble
from engine.config import EngineConfig
from engine.model.checkpoint import load_checkpoint
from tests.support.tone_speech import write_tone_shard
from training.__main__ import main
from training.text.collection import SENTENCES_FILE, read_sentences

TINY = ("--state", "48", "--heads", "2", "--encoder-layers", "2", "--decoder-layers", "2")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def run(work: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["--work", str(work), *arguments]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return report


def test_a_minute_of_speech_becomes_a_checkpoint_that_engine_and_transformers_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    transformers = pytest.importorskip("transformers")
    caplog.set_level(logging.INFO)
    text = run(tmp_path, capsys, "text", "--count", "400", "--held-out", "10", "--root", "/nowhere")
    assert text["sentences"] == 400
    run(tmp_path, capsys, "tokenizer", "--tokens", "300")
    texts = [s.text for s in read_sentences(tmp_path / "text" / SENTENCES_FILE)][:30]
    seconds = write_tone_shard(tmp_path / "speech" / "shards" / "shard-00000", texts, "flac")
    assert seconds > 60

    train = ("train", "--workers", "0", "--budget", "12", "--log-every", "5", *TINY)
    first = run(tmp_path, capsys, *train, "--steps", "30", "--adamw-rate", "0.003")
    assert first["steps"] == 30
    assert first["last"]["text"] < first["first"]["text"] - 0.3
    assert first["last"]["ctc"] < first["first"]["ctc"]
    again = run(tmp_path, capsys, *train, "--steps", "32")
    assert again["steps"] == 32
    assert "goes on from step 30" in caplog.text

    figures = {"rows": [{"way": "offline, whole", "group": "held out", "WER %": 51.25}]}
    (tmp_path / "wer.json").write_text(f"a table\n{json.dumps(figures)}\n")
    export = run(tmp_path, capsys, "export", "--measurements", str(tmp_path / "wer.json"))
    directory = Path(export["checkpoint"])
    assert "51.2" in (directory / "README.md").read_text()

    checkpoint = load_checkpoint(directory)
    assert checkpoint.traits.trimmed_context
    config = EngineConfig(num_slots=4)
    assemble(checkpoint, config, device=torch.device("cpu"), dtype=torch.float32)

    model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(directory)
    processor: Any = transformers.WhisperProcessor.from_pretrained(directory)
    assert processor.tokenizer("Hello", add_special_tokens=False).input_ids == (
        checkpoint.tokenizer.encode("Hello")
    )
    features = processor(torch.zeros(16_000).numpy(), sampling_rate=16_000, return_tensors="pt")
    tokens = model.generate(features.input_features.to(model.dtype), max_new_tokens=4)
    assert tokens.shape[0] == 1


def test_a_command_without_what_it_needs_says_which_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--work", str(tmp_path), "tokenizer"]) == 1
    assert "run `text` first" in capsys.readouterr().err


def test_weights_are_one_for_all_manifests_or_one_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    human = ("--human", "a.tsv", "b.tsv", "c.tsv", "--human-weight", "6", "2")
    assert main(["--work", str(tmp_path), "train", "--steps", "1", *human]) == 1
    assert "one for each of 3 manifests, got 2" in capsys.readouterr().err
