import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from engine.errors import CheckpointError
from engine.text.tokenizer import Tokenizer
from engine.text.vocabulary import LANGUAGE_CODES, NUM_TIMESTAMPS
from tests.support.checkpoints import NUM_TEXT_TOKENS, SHAPES, make_tokenizer, older_files

plain = st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("base"), "base")


def num_tokens(shape: str) -> int:
    return NUM_TEXT_TOKENS + 8 + len(SHAPES[shape].languages) + NUM_TIMESTAMPS


def test_language_codes_are_those_of_transformers() -> None:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    assert tuple(LANGUAGES) == LANGUAGE_CODES


def test_merges_as_single_strings_are_read_too(directory: Path, tmp_path: Path) -> None:
    document = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    older = Tokenizer.load(tmp_path, n_vocab=num_tokens("base"))
    newer = Tokenizer.load(directory, n_vocab=num_tokens("base"))
    assert older.encode(" thank you") == newer.encode(" thank you")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "expected JSON"),
        ("tokenizer.json", "[]", "expected a JSON object, found list"),
        ("tokenizer.json", '{"model": {"type": "Unigram"}}', "expected a BPE model"),
        ("tokenizer.json", '{"model": {"type": "BPE"}}', "expected vocab, merges and added_tokens"),
        ("gpt2.tiktoken", "no rank here\n", "expected `base64 rank` lines"),
        ("gpt2.tiktoken", "IQ== 0\n", "1 text tokens leave 50354 languages"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    source = tmp_path / name if name.endswith(".tiktoken") else tmp_path
    with pytest.raises(CheckpointError, match=message) as caught:
        Tokenizer.load(source, n_vocab=51_864)
    assert str(tmp_path / name) in str(caught.value)


def test_broken_older_files_are_named(directory: Path, tmp_path: Path) -> None:
    older_files(directory, tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nalone\n", "utf-8")
    with pytest.raises(CheckpointError, match="two pieces in line 3, found 'alone'"):
        Tokenizer.load(tmp_path, n_vocab=num_tokens("base"))
    (tmp_path / "merges.txt").write_text("zz zz\n", "utf-8")
    with pytest.raises(CheckpointError, match="merges do not fit the vocabulary"):
        Tokenizer.load(tmp_path, n_vocab=num_tokens("base"))
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"merges\.txt: cannot be read"):
        Tokenizer.load(tmp_path, n_vocab=num_tokens("base"))
    vocab = json.loads((tmp_path / "vocab.json").read_text("utf-8"))
    (tmp_path / "vocab.json").write_text(json.dumps(vocab | {"語": 3}), "utf-8")
    (tmp_path / "merges.txt").write_text("", "utf-8")
    with pytest.raises(CheckpointError, match="byte-level BPE, found the character '語'"):
        Tokenizer.load(tmp_path, n_vocab=num_tokens("base"))
