"""Raw text to sentences that can be spoken and learnt: cased, punctuated, of plain letters."""

import re
from typing import Final

_MOST_WORDS: Final = 24
_MOST_CHARACTERS: Final = 150
_ALLOWED: Final = re.compile(r"[A-Za-z ,.?!'-]+")
_ABBREVIATION: Final = re.compile(r"\b[A-Z]{2,}\b|\b[a-zA-Z]\.")
_QUOTING: Final = re.compile(r"(?<![A-Za-z])'|'(?![A-Za-z])")
# What nobody wants to see a demonstration invent.
_OFFENSIVE: Final = re.compile(
    r"\b(fuck|shit|nigg|whore|bitch|cunt|slut|faggot|rape|rapist|sex|porn|negro)", re.IGNORECASE
)


def as_sentence(raw: str) -> str | None:
    """`raw` as one sentence with a capital and a mark at its end; None if it cannot be one."""
    text = raw.replace("``", "").replace("''", "").replace("`", "'").replace("\u2019", "'")
    text = re.sub(r"\([^)]*\)|[\"_*]", " ", text)
    text = re.sub(r"\s*(--+|\u2014|;|:)\s*", ", ", text).replace("...", ".")
    text = re.sub(r"\s+", " ", _QUOTING.sub("", text)).strip(" ,-")
    text = re.sub(r"\s+([,.?!])", r"\1", text)
    text = re.sub(r",+(?=[,.?!])", "", text)
    if not text or not _ALLOWED.fullmatch(text) or _ABBREVIATION.search(text[:-1]):
        return None
    if len(text) > _MOST_CHARACTERS or len(text.split()) > _MOST_WORDS:
        return None
    if text[-1] not in ".?!":
        text = text.rstrip(",'- ") + "."
    if not any(letter.isalpha() for letter in text) or re.search(r"[,.?!]{2}|\s[.?!,-]", text):
        return None
    if _OFFENSIVE.search(text):
        return None
    return text[0].upper() + text[1:]


def words_of(text: str) -> list[str]:
    """Its words in lower case, without marks."""
    return re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower())
