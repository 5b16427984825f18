import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.text.detokenizer import text_of
from engine.text.tokenizer import Tokenizer
from tests.support.checkpoints import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory = make_tokenizer(tmp_path_factory.mktemp("base"), "base")
    return Tokenizer.load(directory, n_vocab=51_865)


@given(data=st.data())
def test_text_of_the_first_tokens_is_a_prefix_of_the_text(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    tokens = data.draw(st.lists(st.integers(0, tokenizer.timestamp_begin + 3), max_size=30))
    whole = text_of(tokenizer, tokens)
    for end in range(len(tokens)):
        assert whole.startswith(text_of(tokenizer, tokens[:end]))


@given(text=st.text())
def test_whole_text_is_shown_whole(tokenizer: Tokenizer, text: str) -> None:
    assert text_of(tokenizer, tokenizer.encode(text)) == text


def test_an_unfinished_character_is_held_back(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("a語")
    assert len(tokens) > 2
    assert text_of(tokenizer, tokens[:-1]) == "a"
    assert text_of(tokenizer, tokens) == "a語"


def test_bytes_that_can_never_become_a_character_are_shown_as_such(tokenizer: Tokenizer) -> None:
    unfinished = tokenizer.encode("語")[:-1]
    letter = tokenizer.encode("b")
    assert text_of(tokenizer, [*unfinished, *letter]) == "\ufffdb"


def test_special_tokens_and_timestamps_are_no_text(tokenizer: Tokenizer) -> None:
    hello = tokenizer.encode(" hello")
    tokens = [tokenizer.sot, tokenizer.timestamp_begin, *hello, tokenizer.eot]
    assert text_of(tokenizer, tokens) == " hello"
