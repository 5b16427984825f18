from training.text import words
from training.text.cleaning import as_sentence


def test_every_list_has_distinct_speakable_words() -> None:
    names = (words.FIRST_NAMES, words.LAST_NAMES, words.PLACES, words.PEOPLE)
    vocabulary = (words.NOUNS, words.ADJECTIVES, words.WHERE, words.WHEN, words.DEVICES)
    for listed in (*names, *vocabulary, words.PHRASES, words.COMMANDS):
        assert len(set(listed)) == len(listed)
        assert [word for word in listed if as_sentence(word) is None] == []


def test_verbs_come_with_their_past() -> None:
    assert ("take", "took") in words.VERBS
    assert all(base and past for base, past in words.VERBS)


def test_a_list_is_split_at_any_space() -> None:
    assert words.split_words(" one\n two ") == ("one", "two")
