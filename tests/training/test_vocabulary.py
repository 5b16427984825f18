from pathlib import Path

import pytest

from engine.text.vocabulary import NUM_TIMESTAMPS
from tests.support.recipe import NUM_TEXT_TOKENS, TEXTS, make_tokenizer
from training.errors import RecipeError
from training.vocabulary import load_tokens, train_tokenizer


def test_special_tokens_are_in_whispers_order(tmp_path: Path) -> None:
    tokens = load_tokens(make_tokenizer(tmp_path))
    first = NUM_TEXT_TOKENS
    assert (tokens.eot, tokens.sot, tokens.languages) == (first, first + 1, {"en": first + 2})
    assert (tokens.translate, tokens.transcribe, tokens.sot_lm) == (first + 3, first + 4, first + 5)
    assert (tokens.sot_prev, tokens.no_speech) == (first + 6, first + 7)
    assert tokens.timestamp_begin == first + 9
    assert tokens.n_vocab == first + 9 + NUM_TIMESTAMPS
    assert tokens.forced_prefix("en", "transcribe", timestamps=True) == (
        *(first + 1, first + 2, first + 4),
    )


def test_text_comes_back_and_a_tokenizer_is_not_made_twice(tmp_path: Path) -> None:
    directory = make_tokenizer(tmp_path)
    written = (directory / "tokenizer.json").stat().st_mtime_ns
    make_tokenizer(directory)
    assert (directory / "tokenizer.json").stat().st_mtime_ns == written
    tokens = load_tokens(directory)
    for text in (*TEXTS, "Ünknown words, too."):
        assert tokens.decode(tokens.encode(text)) == text


def test_too_few_texts_and_no_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expected 5000 pieces"):
        train_tokenizer(TEXTS, tmp_path, 5000)
    with pytest.raises(RecipeError, match="run `tokenizer` first"):
        load_tokens(tmp_path)
