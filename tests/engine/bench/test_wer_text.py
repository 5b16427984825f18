import pytest

from engine.bench.wer_text import Errors, Scorer, TextErrors, changed_words


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer()


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("MISTER QUILTER IS THE APOSTLE", "Mr. Quilter is the apostle."),
        ("it is twenty one dollars", "It's $21!"),
        ("THE GRAY COLOR", "the grey colour"),
        ("we don't", "We don\u2019t"),  # a typographic apostrophe
        ("um it is late", "It is late. [noise]"),
    ],
)
def test_what_is_only_written_otherwise_is_no_error(scorer: Scorer, said: str, heard: str) -> None:
    errors = scorer.count_errors(said, heard, "en")
    assert errors.words.count == errors.characters.count == 0
    assert errors.words.units > 0


def test_errors_are_of_the_fewest_that_explain_what_was_heard(scorer: Scorer) -> None:
    errors = scorer.count_errors("a black cat sat there", "the black cat cat sat", "en")
    assert errors.words == Errors(5, substitutions=1, deletions=1, insertions=1)
    assert errors.characters.units == len("a black cat sat there")


def test_where_nothing_was_said_everything_heard_is_inserted(scorer: Scorer) -> None:
    assert scorer.count_errors("", "thank you", "en").words == Errors(0, insertions=2)
    assert scorer.count_errors("thank you", "", "en").words == Errors(2, deletions=2)


def test_other_languages_keep_their_words(scorer: Scorer) -> None:
    errors = scorer.count_errors("O ano não é bom", "o ano não é, bom.", "pt")
    assert errors.words == Errors(5)
    assert scorer.count_errors("eins zwei", "1 2", "de").words.substitutions == 2


def test_letters_are_words_where_words_are_not_parted(scorer: Scorer) -> None:
    assert scorer.count_errors("今日は", "今日わ", "ja").words == Errors(3, substitutions=1)


def test_words_are_counted_as_they_are_compared(scorer: Scorer) -> None:
    assert scorer.count_words(" Thank you. [music] ", "") == 2
    assert scorer.count_words("...", "") == 0


def test_errors_add_up() -> None:
    one = TextErrors(Errors(4, 1, 0, 0), Errors(9, 2, 1, 0))
    other = TextErrors(Errors(6, 0, 1, 2), Errors(11, 0, 0, 3))
    both = one + other
    assert both.words == Errors(10, 1, 1, 2)
    assert both.words.percent(both.words.count) == pytest.approx(40)
    assert both.characters.percent(both.characters.count) == pytest.approx(30)
    assert Errors(0, 0, 0, 3).percent(3) == 0.0


@pytest.mark.parametrize(
    ("revisions", "final", "changed"),
    [
        (["a", "a b", "a b c"], "a b c d", 0),
        (["a x", "a b", "a b c"], "a b c", 1),
        (["a b c"], "x b c", 3),  # a word that changes moves those behind it
        (["a b", "x b", "a b"], "a b", 4),  # back again: it flickered all the same
        (["a b c"], "a", 2),
        ([], "a", 0),
    ],
)
def test_words_that_a_later_text_does_not_keep_have_flickered(
    revisions: list[str], final: str, changed: int
) -> None:
    assert changed_words([text.split() for text in revisions], final.split()) == changed
