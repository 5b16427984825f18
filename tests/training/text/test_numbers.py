from random import Random

import pytest

from training.text import numbers


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (342, "three hundred forty two"),
        (1_005, "one thousand five"),
        (2_000_001, "two million one"),
        (3_000_000_000, "three billion"),
    ],
)
def test_cardinals(number: int, said: str) -> None:
    assert numbers.cardinal(number) == said


def test_the_british_say_and_within_hundreds() -> None:
    said = numbers.cardinal(120_342, joiner=" and ")
    assert said == "one hundred and twenty thousand three hundred and forty two"


@pytest.mark.parametrize(
    ("number", "said"),
    [(1, "first"), (12, "twelfth"), (20, "twentieth"), (21, "twenty first"), (33, "thirty third")],
)
def test_ordinals(number: int, said: str) -> None:
    assert numbers.ordinal(number) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1900, "nineteen hundred"),
        (1905, "nineteen oh five"),
        (1984, "nineteen eighty four"),
        (2000, "two thousand"),
        (2009, "two thousand and nine"),
        (2024, "twenty twenty four"),
    ],
)
def test_years(number: int, said: str) -> None:
    assert numbers.year(number) == said


def test_whatever_is_drawn_is_words_alone() -> None:
    rng = Random(1)
    for _ in range(300):
        for said in (
            numbers.any_cardinal(rng),
            numbers.clock_time(rng),
            numbers.calendar_date(rng),
            numbers.money(rng),
            numbers.digits(rng, 4),
        ):
            assert said.replace(" ", "").replace("'", "").replace(",", "").isalpha()
            assert "  " not in said
