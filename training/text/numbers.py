"""Numbers, dates, times and money as people say them, in words.

Words and not digits: what is written is then exactly what is spoken, and no synthesiser has to
guess how a figure is read.
"""

from random import Random
from typing import Final

from training.text.words import split_words

ONES: Final = split_words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TENS: Final = split_words("twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES: Final = ((1_000_000_000, "billion"), (1_000_000, "million"), (1_000, "thousand"))
_IRREGULAR_ORDINALS: Final = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
MONTHS: Final = split_words(
    "January February March April May June July August September October November December"
)
DAYS: Final = split_words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_LONGEST_MONTH: Final = 31


def cardinal(number: int, *, joiner: str = " ") -> str:
    """`number` from 0 to below 10¹² in words; `joiner` " and " is how the British say hundreds."""
    if number < len(ONES):
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens - 2] + (f" {ONES[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{ONES[hundreds]} hundred" + (f"{joiner}{cardinal(rest)}" if rest else "")
    for scale, name in _SCALES:
        if number >= scale:
            many, rest = divmod(number, scale)
            said = f"{cardinal(many, joiner=joiner)} {name}"
            return said + (f" {cardinal(rest, joiner=joiner)}" if rest else "")
    raise AssertionError(number)


def ordinal(number: int) -> str:
    """ "twenty first" for 21."""
    *before, last = cardinal(number).split()
    if last in _IRREGULAR_ORDINALS:
        last = _IRREGULAR_ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return " ".join((*before, last))


def year(number: int) -> str:
    """A year from 1100 to 2099: "nineteen oh five", "two thousand and four"."""
    century, rest = divmod(number, 100)
    if number // 10 == 200:
        return "two thousand" + (f" and {ONES[rest]}" if rest else "")
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def digits(rng: Random, count: int) -> str:
    """A number read digit by digit."""
    return " ".join(rng.choice(ONES[:10]) for _ in range(count))


def any_cardinal(rng: Random) -> str:
    """Small numbers often, large ones now and then."""
    most = rng.choice((20, 99, 99, 999, 9_999, 999_999, 20_000_000))
    return cardinal(rng.randint(2, most), joiner=rng.choice((" ", " and ")))


def clock_time(rng: Random) -> str:
    """A time of the day, said in one of several ways."""
    hour = cardinal(rng.randint(1, 12))
    minutes = rng.randint(1, 59)
    part = rng.choice(("", "", " in the morning", " in the afternoon", " in the evening"))
    match rng.randrange(5):
        case 0:
            return f"{hour} o'clock{part}"
        case 1:
            return f"{rng.choice(('half past', 'quarter past', 'a quarter to'))} {hour}"
        case 2:
            return f"{cardinal(rng.choice((5, 10, 20, 25)))} {rng.choice(('past', 'to'))} {hour}"
        case 3:
            return f"{hour} {'oh ' if minutes < 10 else ''}{cardinal(minutes)}{part}"
        case _:
            return rng.choice(("noon", "midnight", f"{hour} thirty{part}", f"{hour}{part}"))


def calendar_date(rng: Random) -> str:
    """A day of a month, now and then with its year."""
    day, month = ordinal(rng.randint(1, _LONGEST_MONTH)), rng.choice(MONTHS)
    date = f"{month} {day}" if rng.random() < 0.5 else f"the {day} of {month}"
    return f"{date}, {any_year(rng)}" if rng.random() < 0.3 else date


def any_year(rng: Random) -> str:
    """Mostly a recent one."""
    return year(rng.randint(1900, 2039) if rng.random() < 0.7 else rng.randint(1100, 1899))


def money(rng: Random) -> str:
    """An amount in a currency."""
    unit = rng.choice(("dollars", "dollars", "pounds", "euros", "cents", "pence"))
    most = 99 if unit in ("cents", "pence") else rng.choice((20, 99, 999, 50_000))
    return f"{cardinal(rng.randint(2, most))} {unit}"
