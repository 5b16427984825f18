"""The `tokenizer` command: byte-level BPE, with Whisper's special tokens in Whisper's order."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from engine.text.tokenizer import Tokenizer as WhisperTokens
from engine.text.vocabulary import (
    NUM_TIMESTAMPS,
    SPECIALS_AFTER_LANGUAGES,
    SPECIALS_BEFORE_LANGUAGES,
)
from training.errors import RecipeError

TOKENIZER_FILE: Final = "tokenizer.json"
_SPECIALS: Final = (*SPECIALS_BEFORE_LANGUAGES, "<|en|>", *SPECIALS_AFTER_LANGUAGES)
_TIMESTAMPS: Final = tuple(f"<|{i * 0.02:.2f}|>" for i in range(NUM_TIMESTAMPS))
# Of a small model, whose embedding would otherwise be half of it.
NUM_TEXT_TOKENS: Final = 1536


def train_tokenizer(
    texts: Iterable[str], directory: Path, num_text_tokens: int = NUM_TEXT_TOKENS
) -> Path:
    """Learn the pieces of `texts` and write `tokenizer.json`, unless it is there.

    Raises RecipeError where the texts are too few for that many pieces.
    """
    path = directory / TOKENIZER_FILE
    if path.is_file():
        return path
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=num_text_tokens,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    # A sentence is decoded behind a space, as Whisper writes it.
    tokenizer.train_from_iterator((f" {text}" for text in texts), trainer)
    if (found := tokenizer.get_vocab_size()) != num_text_tokens:
        raise RecipeError(f"expected {num_text_tokens} pieces, the texts gave {found}")
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in _SPECIALS])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in _TIMESTAMPS])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path


def load_tokens(directory: Path) -> WhisperTokens:
    """The tokens of `directory` as the engine reads them. Raises RecipeError."""
    path = directory / TOKENIZER_FILE
    if not path.is_file():
        raise RecipeError(f"{path}: expected a tokenizer, found none; run `tokenizer` first")
    document = json.loads(path.read_text("utf-8"))
    n_vocab = len(document["model"]["vocab"]) + len(document["added_tokens"])
    return WhisperTokens.load(directory, n_vocab=n_vocab, is_multilingual=True)
