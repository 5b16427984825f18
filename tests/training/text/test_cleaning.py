import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.text.cleaning import as_sentence, words_of


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("hello there", "Hello there."),
        ("what is it?", "What is it?"),
        ("a lamp (of brass); lit -- at night", "A lamp, lit, at night."),
        ("he said ``so be it''", "He said so be it."),
        ("the boys' 'own' book", "The boys own book."),
        ("it isn't so , is it", "It isn't so, is it."),
    ],
)
def test_text_becomes_a_sentence(raw: str, sentence: str) -> None:
    assert as_sentence(raw) == sentence


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "...",
        "chapter 3",
        "the BBC said so",
        "e.g. this one",
        "naïve",
        "word " * 30,
        "?!",
    ],
)
def test_what_cannot_be_read_out_or_learnt_is_no_sentence(raw: str) -> None:
    assert as_sentence(raw) is None


@given(st.text(alphabet="aB ,.?!'-;(", max_size=30))
def test_a_sentence_is_cased_and_punctuated_and_stays_as_it_is(raw: str) -> None:
    sentence = as_sentence(raw)
    if sentence is not None:
        assert sentence[-1] in ".?!"
        assert sentence == sentence.strip()
        assert not sentence[0].islower()
        assert as_sentence(sentence) == sentence


def test_words_are_without_marks() -> None:
    assert words_of("Don't, she said.") == ["don't", "she", "said"]
