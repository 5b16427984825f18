from pathlib import Path
from random import Random

import pytest

from training.errors import RecipeError
from training.text.sources import read_installed

GLOSS = (
    "  1 This is a licence | not a gloss\n"
    '0001 03 n 01 lamp 0 000 @ | a thing that gives light; "the lamp gives light at night"  \n'
    '0002 03 n 01 sun 0 000 @ | the thing that gives light by day; "light of day at night"  \n'
    '0003 03 n 01 moon 0 000 @ | the light of the night by day; "an unheard quixotic thing"  \n'
)
FORTUNES = "The light of day.  It gives light at night.\n\t\t-- Nobody\n%\nthe thing\n"


def test_installed_texts_give_examples_explanations_and_sayings(tmp_path: Path) -> None:
    wordnet = tmp_path / "usr/share/wordnet"
    fortunes = tmp_path / "usr/share/games/fortunes"
    for directory in (wordnet, fortunes):
        directory.mkdir(parents=True)
    (wordnet / "data.noun").write_text(GLOSS * 3)
    (fortunes / "cookie").write_text(FORTUNES * 3)
    (fortunes / "cookie.dat").write_bytes(b"\xff")
    (fortunes / "politics").write_text(FORTUNES.replace("light", "vote") * 3)
    installed = read_installed(Random(1), tmp_path)
    sentences = set(installed.sentences)
    assert ("example", "the lamp gives light at night") in sentences
    assert ("explanation", "a thing that gives light") in sentences
    assert ("saying", "It gives light at night.") in sentences
    assert not any("vote" in text or "licence" in text for _, text in sentences)
    assert "light" in installed.rare_words
    assert installed.lacking == (
        "wamerican or wbritish is not installed: more words to spell are missing",
    )
    assert "light" in installed.lexicon().rare


def test_words_that_are_met_too_seldom_take_their_sentence_with_them(tmp_path: Path) -> None:
    (tmp_path / "usr/share/wordnet").mkdir(parents=True)
    (tmp_path / "usr/share/wordnet/data.noun").write_text(GLOSS)
    installed = read_installed(Random(1), tmp_path)
    assert not any("quixotic" in text for _, text in installed.sentences)


def test_word_lists_add_words_to_spell(tmp_path: Path) -> None:
    (tmp_path / "usr/share/dict").mkdir(parents=True)
    (tmp_path / "usr/share/dict/american-english").write_text("zephyr\nParis\nit's\nnaïve\n")
    assert read_installed(Random(1), tmp_path).rare_words == ("zephyr",)


def test_where_nothing_is_installed_everything_is_said_to_be_missing(tmp_path: Path) -> None:
    installed = read_installed(Random(1), tmp_path)
    assert (installed.sentences, installed.rare_words) == ((), ())
    assert len(installed.lacking) == 3


def test_books_give_their_sentences_without_the_quotes_around_them(tmp_path: Path) -> None:
    book = (
        "CHAPTER I\n\nThe light was\ngone. \u201cIt is the light,\u201d she said.  "
        "\u201cDon\u2019t give it away!\u201d\n\nThe light gives Mr. Light nothing. and no more\n"
    )
    (tmp_path / "one.txt").write_text(book * 3)
    installed = read_installed(Random(1), tmp_path / "nowhere", [tmp_path])
    assert set(installed.sentences) == {
        ("prose", "The light was gone."),
        ("prose", 'It is the light," she said.'),
        ("prose", "Don't give it away!"),
        ("prose", "The light gives Mr. Light nothing."),
    }


def test_a_directory_without_books_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"expected books as \*\.txt, found none"):
        read_installed(Random(1), tmp_path, [tmp_path])
