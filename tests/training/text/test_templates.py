import re
from itertools import islice
from random import Random

from training.text.cleaning import as_sentence
from training.text.templates import (
    SLOTS,
    TEMPLATES,
    Lexicon,
    fill,
    noun_phrase,
    spelt_word,
    template_sentences,
)


def test_every_template_is_filled_and_makes_a_sentence() -> None:
    rng = Random(2)
    for kind, (_, templates) in TEMPLATES.items():
        for template in templates:
            filled = [fill(template, rng, Lexicon()) for _ in range(5)]
            assert not any("{" in text or "}" in text for text in filled), template
            assert any(as_sentence(text) for text in filled), (kind, template)


def test_every_slot_is_used_by_a_template() -> None:
    used = {
        slot
        for _, templates in TEMPLATES.values()
        for template in templates
        for slot in re.findall(r"{(\w+)}", template)
    }
    assert used == set(SLOTS)


def test_an_article_fits_its_noun() -> None:
    rng = Random(3)
    phrases = [noun_phrase(rng, Lexicon()) for _ in range(500)]
    assert not [p for p in phrases if re.match(r"a [aeiou]|an [^aeiou]", p)]


def test_a_spelt_word_has_its_own_letters() -> None:
    text = spelt_word(Random(4), Lexicon(rare=("lamp",)))
    assert re.sub("[ ,]", "", text).endswith("LAMP")
    assert text.startswith("lamp")


def test_templates_alone_have_plenty_of_distinct_sentences() -> None:
    drawn = islice(template_sentences(Random(5), Lexicon()), 4000)
    cleaned = {as_sentence(text) for _, text in drawn} - {None}
    assert len(cleaned) > 3000
