import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.word_errors import MissingPackageError, WordErrors, count_word_errors, words_of
from tests.support.words import word_error_rate


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("IT'S  o\u2019clock", ["it's", "o'clock"]),
        ("'quoted' words'", ["quoted", "words"]),
        ("cafe\u0301", ["caf\u00e9"]),
        ("twenty-one — over", ["twenty", "one", "over"]),
        ("Größe é é", ["größe", "é", "é"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("$5 + 3", ["5", "3"]),
        ("…", []),
    ],
)
def test_writing_is_not_compared_only_words_are(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_errors_are_told_apart_and_add_up() -> None:
    found = count_word_errors(
        [("one two three", "one too three four"), ("five six", "six"), ("", "seven"), ("x", "")]
    )
    assert found == WordErrors(words=6, substitutions=1, deletions=2, insertions=2)
    assert found.rate == pytest.approx(5 / 6)
    assert found + found == WordErrors(words=12, substitutions=2, deletions=4, insertions=4)


def test_nothing_said_has_no_rate() -> None:
    assert count_word_errors([]) == WordErrors()
    assert count_word_errors([("", "oh")]).rate is None


sentences = st.lists(st.sampled_from("abcd"), min_size=1, max_size=12)


@given(sentences, sentences)
def test_the_rate_is_that_of_the_shortest_way(said: list[str], heard: list[str]) -> None:
    rate = count_word_errors([(" ".join(said), " ".join(heard))]).rate
    assert rate == pytest.approx(word_error_rate(said, heard))


def test_without_jiwer_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingPackageError) as missing:
        count_word_errors([])
    assert str(missing.value) == (
        "counting word errors needs jiwer: pip install 'starling-asr[loadtest]'"
    )
