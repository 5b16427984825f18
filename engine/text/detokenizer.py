"""Tokens to the text that may be shown while more tokens are still to come.

Decides what of a hypothesis is text already. One character can span several tokens (three of
them for many Chinese characters), so the bytes of an unfinished last character are held back.
"""

import codecs
from collections.abc import Iterable

from engine.text.tokenizer import Tokenizer


def text_of(tokenizer: Tokenizer, tokens: Iterable[int]) -> str:
    """The text of `tokens` without special tokens, timestamps and an unfinished last character.

    The text of the first tokens of a list is always a prefix of the text of the whole list.
    Bytes that can never become UTF-8 are shown as U+FFFD, as soon as that is certain.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return "".join(decoder.decode(tokenizer.token_bytes(token)) for token in tokens)
