"""Sentences from templates: commands, numbers, dates, times, names, spellings, everyday talk.

There are far more of them than anybody trains on, so the recipe works where no text is installed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_uppercase
from typing import Final

from training.text import numbers, words

_ALPHABET_WORDS: Final = dict(
    zip(
        ascii_uppercase,
        words.split_words(
            "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike "
            "november oscar papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu"
        ),
        strict=True,
    )
)
_MODALS: Final = (
    *("did not", "could not", "would", "will", "should", "might", "must", "can", "may"),
    *("didn't", "won't", "can't", "wouldn't", "had to", "wanted to", "used to", "tried to"),
)
_DETERMINERS: Final = (
    *("the", "the", "the", "a", "a", "my", "his", "her", "our", "their", "your"),
    *("that", "this", "some", "every", "another", "no", "the other", "one more"),
)


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The vocabulary that templates draw from; `rare` words come from installed lists."""

    nouns: Sequence[str] = words.NOUNS
    adjectives: Sequence[str] = words.ADJECTIVES
    rare: Sequence[str] = words.NOUNS + words.ADJECTIVES


def noun_phrase(rng: Random, lexicon: Lexicon) -> str:
    """ "every useful lamp"; "a" becomes "an" where it must."""
    determiner, noun = rng.choice(_DETERMINERS), rng.choice(lexicon.nouns)
    phrase = f"{rng.choice(lexicon.adjectives)} {noun}" if rng.random() < 0.5 else noun
    return f"{'an' if determiner == 'a' and phrase[0] in 'aeiou' else determiner} {phrase}"


def full_name(rng: Random) -> str:
    """A first name, often with a family name."""
    first = rng.choice(words.FIRST_NAMES)
    return f"{first} {rng.choice(words.LAST_NAMES)}" if rng.random() < 0.5 else first


def spelling(rng: Random, lexicon: Lexicon) -> str:
    """A word or code letter by letter, or in the words of the radio alphabet."""
    if rng.random() < 0.3:
        letters = "".join(rng.choice(ascii_uppercase) for _ in range(rng.randint(2, 5)))
    else:
        letters = rng.choice(lexicon.rare).upper()
        letters = "".join(letter for letter in letters if letter in _ALPHABET_WORDS)[:9] or "A"
    if rng.random() < 0.2:
        return " ".join(_ALPHABET_WORDS[letter] for letter in letters[:6])
    return ", ".join(letters) if rng.random() < 0.5 else " ".join(letters)


def spelt_word(rng: Random, lexicon: Lexicon) -> str:
    """A word and its letters: "lamp is spelt l, a, m, p"."""
    word = rng.choice(lexicon.rare)
    letters = [letter.upper() for letter in word if letter.isalpha()]
    joiner = rng.choice((" ", ", "))
    return f"{word}{rng.choice((' is spelt ', ', that is ', ', '))}{joiner.join(letters)}"


def one_noun(rng: Random, lexicon: Lexicon) -> str:
    """A noun with the article that fits it."""
    noun = rng.choice(lexicon.nouns)
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


Slot = Callable[[Random, Lexicon], str]

SLOTS: Final[Mapping[str, Slot]] = {
    "n": lambda rng, _: numbers.any_cardinal(rng),
    "small": lambda rng, _: numbers.cardinal(rng.randint(2, 12)),
    "ordinal": lambda rng, _: numbers.ordinal(rng.randint(1, 40)),
    "digits": lambda rng, _: numbers.digits(rng, rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 10))),
    "time": lambda rng, _: numbers.clock_time(rng),
    "date": lambda rng, _: numbers.calendar_date(rng),
    "day": lambda rng, _: rng.choice(numbers.DAYS),
    "month": lambda rng, _: rng.choice(numbers.MONTHS),
    "year": lambda rng, _: numbers.any_year(rng),
    "money": lambda rng, _: numbers.money(rng),
    "name": lambda rng, _: full_name(rng),
    "place": lambda rng, _: rng.choice(words.PLACES),
    "noun": lambda rng, lexicon: rng.choice(lexicon.nouns),
    "adjective": lambda rng, lexicon: rng.choice(lexicon.adjectives),
    "thing": noun_phrase,
    "rare": lambda rng, lexicon: rng.choice(lexicon.rare),
    "person": lambda rng, _: rng.choice(words.PEOPLE),
    "did": lambda rng, _: rng.choice(words.VERBS)[1],
    "do": lambda rng, _: rng.choice(words.VERBS)[0],
    "modal": lambda rng, _: rng.choice(_MODALS),
    "where": lambda rng, _: rng.choice(words.WHERE),
    "when": lambda rng, _: rng.choice(words.WHEN),
    "device": lambda rng, _: rng.choice(words.DEVICES),
    "onoff": lambda rng, _: rng.choice(("on", "off")),
    "phrase": lambda rng, _: rng.choice(words.PHRASES),
    "command": lambda rng, _: rng.choice(words.COMMANDS),
    "spelling": spelling,
    "spelt": spelt_word,
    "one": one_noun,
}


def _lines(listed: str) -> tuple[str, ...]:
    return tuple(line for line in listed.splitlines() if line)


# By kind of sentence; a kind is drawn by its weight, a template within it evenly.
TEMPLATES: Final[Mapping[str, tuple[int, tuple[str, ...]]]] = {
    "grammar": (
        50,
        _lines("""
{person} {did} {thing}
{person} {did} {thing} {where}
{person} {did} {thing} {when}
{when}, {person} {did} {thing} {where}
did {person} {do} {thing} {where}?
why did {person} {do} {thing}?
how did {person} {do} {thing} {when}?
{person} {modal} {do} {thing}
{person} {modal} {do} {thing} {where}
there was {thing} {where}
{thing} is {adjective}
{thing} was {adjective} and {adjective}
{thing} looked {adjective}, but {thing} did not
{person} {did} {thing} and {did} {thing}
{person} {did} {thing}, and then {person} {did} {thing} {where}
please {do} {thing}
could you {do} {thing} {when}?
remember to {do} {thing} {where}
{name} {did} {thing} with {name}
when {person} {did} {thing}, {person} {did} {thing}
if {person} {modal} {do} {thing}, {person} {modal} {do} {thing}
{person} said that {thing} was {adjective}
{person} thought about {thing} {when}
{person} asked {name} to {do} {thing}
it was {adjective} to {do} {thing} {when}
nobody knew why {person} {did} {thing}
what {one}!
{person} {did} {thing}, because {thing} was {adjective}
"""),
    ),
    "numbers": (
        15,
        _lines("""
{n}
{n} {noun}s
there are {n} people in the {noun}
the answer is {n}
{n} plus {n}
{small} times {small}
{n} percent of the {noun}s were {adjective}
it is {n} miles from {place} to {place}
the temperature is {small} degrees
turn to page {n}
my phone number is {digits}
the code is {digits}
{digits}
it costs {money}
{name} paid {money} for {thing}
that will be {money}, please
{name} is {n} years old
count from {small} to {n}
the {ordinal} {noun} is {adjective}
chapter {n}, the {adjective} {noun}
platform {small}, carriage {small}, seat {n}
{money}
"""),
    ),
    "times": (
        12,
        _lines("""
the meeting is at {time}
wake me up at {time}
set an alarm for {time}
the train to {place} leaves at {time}
we will meet on {day} at {time}
my birthday is on {date}
today is {day}, {date}
{name} was born in {year}
the war ended in {year}
{date}
{time}
{name} and {name} went to {place} in {month}
it happened on {date}
see you on {day} at {time}
from {time} to {time} on {day}
they moved to {place} in {year}
"""),
    ),
    "commands": (
        10,
        _lines("""
{command}
{command}, please
turn {onoff} the {device}
turn the {device} {onoff} at {time}
set a timer for {small} minutes
set the volume to {small}
call {name}
send a message to {name}
remind me to call {name} on {day}
remind me to {do} {thing} at {time}
play some music by {name}
what is the weather in {place}?
what time is it in {place}?
how far is it to {place}?
add {thing} to my list
book a table for {small} at {time}
show me the {noun}
find the nearest {noun}
where is the {noun}?
navigate to {place}
open the {noun} and {do} {thing}
"""),
    ),
    "talk": (
        8,
        _lines("""
{phrase}
{phrase}, {name}
{phrase}, {phrase}
hello, {name}, {phrase}
my name is {name}
this is {name} speaking
{name} lives in {place}
I am looking for {thing}
I need a new {noun}
{name}
{place}
thank you for the {noun}, {name}
"""),
    ),
    "spelling": (
        5,
        _lines("""
{spelling}
{spelt}
how do you spell {rare}?
my name is spelt {spelling}
the word is {spelt}
the code is {spelling}
"""),
    ),
    # Words that nothing before them announces: the decoder has to listen.
    "words": (
        10,
        _lines("""
{rare}
{rare} {rare}
{rare}, {rare} and {rare}
{rare} {noun} {rare} {adjective}
the {rare} of the {rare}
{person} spoke of {rare} and {rare}
"""),
    ),
}


def fill(template: str, rng: Random, lexicon: Lexicon) -> str:
    """Put words for every slot of `template`, each drawn anew."""
    parts = []
    for literal, _, slot in (_cut(piece) for piece in template.split("{")):
        parts.append(f"{SLOTS[slot](rng, lexicon)}{literal}" if slot else literal)
    return "".join(parts)


def _cut(piece: str) -> tuple[str, str, str]:
    """What stands behind a slot, a brace, and the slot's name; none before the first."""
    slot, brace, literal = piece.rpartition("}")
    return literal, brace, slot


def template_sentences(rng: Random, lexicon: Lexicon) -> Iterator[tuple[str, str]]:
    """Kinds and sentences without end, repetitions among them."""
    kinds = list(TEMPLATES)
    weights = [TEMPLATES[kind][0] for kind in kinds]
    while True:
        for kind in rng.choices(kinds, weights, k=100):
            yield kind, fill(rng.choice(TEMPLATES[kind][1]), rng, lexicon)
