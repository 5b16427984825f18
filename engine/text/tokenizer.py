"""Whisper's tokens: text to tokens and back, special tokens, prompts, prefixes, words.

Decides what a token id means for one checkpoint. All of them are byte-level BPE, laid out as
OpenAI did (openai/whisper tokenizer.py): text, end of text, start of transcript, one token per
language, translate, transcribe, startoflm, startofprev, nospeech, notimestamps, then 1501
timestamps 20 ms apart.
"""

import codecs
import string
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from engine.errors import CheckpointError, ConfigError
from engine.events import Task
from engine.text.vocabulary import (
    NUM_TIMESTAMPS,
    SPECIALS_AFTER_LANGUAGES,
    SPECIALS_BEFORE_LANGUAGES,
    Vocabulary,
    piece_bytes,
    read_tiktoken,
    read_tokenizer_json,
    read_vocab_and_merges,
)

# Published checkpoints: 51864 tokens are English only, 51865 (99 languages) and 51866 are not.
MULTILINGUAL_NUM_TOKENS: Final = 51_865

# Written without spaces between words: split at characters (openai/whisper tokenizer.py).
_UNSPACED_LANGUAGES: Final = frozenset({"zh", "ja", "th", "lo", "my", "yue"})

# Hugging Face's first conversions kept the token's older name.
_RENAMED_SPECIALS: Final = {"<|nocaptions|>": "<|nospeech|>"}

# Speaker tags and sound descriptions, which are written but not spoken (openai/whisper
# tokenizer.py). Single symbols are suppressed where they are one token; of a musical sign, the
# first byte token is, since these characters share their first two UTF-8 bytes.
_NON_SPEECH_SYMBOLS: Final = """
" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』
<< >> <<< >>> -- --- -( -[ (' (" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪
"""
_MUSICAL_SIGNS: Final = frozenset("♩♪♫♬♭♮♯")


class Tokenizer:
    """The tokens of one checkpoint. Immutable; safe to share between threads.

    Everything below `eot` is text; `eot` and above are special, `timestamp_begin` and above are
    timestamps. `languages` maps ISO 639-1 codes to tokens in token order; an English-only model
    has `en` alone, which its prefix does not contain.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        name: str,
        n_vocab: int,
        languages: Mapping[str, int] | None,
        is_multilingual: bool | None,
    ) -> None:
        specials = {_RENAMED_SPECIALS.get(k, k): i for k, i in vocabulary.specials.items()}
        missing = [
            special
            for special in (*SPECIALS_BEFORE_LANGUAGES, *SPECIALS_AFTER_LANGUAGES)
            if special not in specials
        ]
        if missing:
            raise CheckpointError(f"{name}: expected {', '.join(missing)}, found no such tokens")
        self.eot: Final = specials["<|endoftext|>"]
        self.sot: Final = specials["<|startoftranscript|>"]
        self.translate: Final = specials["<|translate|>"]
        self.transcribe: Final = specials["<|transcribe|>"]
        self.sot_lm: Final = specials["<|startoflm|>"]
        self.sot_prev: Final = specials["<|startofprev|>"]
        self.no_speech: Final = specials["<|nospeech|>"]
        self.no_timestamps: Final = specials["<|notimestamps|>"]
        self.timestamp_begin: Final = self.no_timestamps + 1
        self.n_vocab: Final = n_vocab
        if self.timestamp_begin + NUM_TIMESTAMPS > n_vocab:
            raise CheckpointError(
                f"{name}: expected the {self.timestamp_begin + NUM_TIMESTAMPS} tokens of this "
                f"tokenizer in the model, found n_vocab {n_vocab}"
            )
        self.is_multilingual: Final = (
            n_vocab >= MULTILINGUAL_NUM_TOKENS if is_multilingual is None else is_multilingual
        )
        if languages is None:
            languages = {
                special.strip("<|>"): token
                for special, token in specials.items()
                if self.sot < token < self.translate
            }
        by_token = dict(sorted(languages.items(), key=lambda item: item[1]))
        self.languages: Final[dict[str, int]] = (
            by_token if self.is_multilingual else {"en": by_token.get("en", self.sot + 1)}
        )
        if not self.languages:
            raise CheckpointError(f"{name}: expected language tokens after {self.sot}, found none")
        self._language_of: Final = {token: code for code, token in self.languages.items()}
        text_ids = {piece: i for piece, i in vocabulary.ids.items() if i < self.eot}
        try:
            bytes_of = {i: piece_bytes(piece) for piece, i in text_ids.items()}
            bpe = BPE(vocab=text_ids, merges=vocabulary.merges)
        except KeyError as exc:
            raise CheckpointError(
                f"{name}: expected a byte-level BPE, found the character {exc.args[0]!r}"
            ) from exc
        except Exception as exc:  # the Rust extension raises nothing narrower
            raise CheckpointError(f"{name}: merges do not fit the vocabulary: {exc}") from exc
        # Ids without a piece are unused rows of the embedding; they are no text.
        self._bytes: Final = tuple(bytes_of.get(i, b"") for i in range(self.eot))
        self._bpe: Final = tokenizers.Tokenizer(bpe)
        self._bpe.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)

    @classmethod
    def load(
        cls,
        source: Path,
        *,
        n_vocab: int,
        lang_to_id: Mapping[str, int] | None = None,
        is_multilingual: bool | None = None,
    ) -> "Tokenizer":
        """Read a directory in the Hugging Face format, or a `.tiktoken` file.

        `n_vocab` is the number of tokens that the model knows; `lang_to_id` (keys `en` or
        `<|en|>`) and `is_multilingual` are the checkpoint's own words where it has them.
        Raises CheckpointError.
        """
        if source.suffix == ".tiktoken" and source.is_file():
            vocabulary, file = read_tiktoken(source, n_vocab), source
        elif (file := source / "tokenizer.json").is_file():
            vocabulary = read_tokenizer_json(file)
        elif (file := source / "vocab.json").is_file():
            vocabulary = read_vocab_and_merges(source)
        else:
            raise CheckpointError(
                f"{source}: expected tokenizer.json, vocab.json with merges.txt, or a .tiktoken "
                "file, found none of them"
            )
        languages = None
        if lang_to_id:
            languages = {code.strip("<|>"): token for code, token in lang_to_id.items()}
        return cls(
            vocabulary,
            name=str(file),
            n_vocab=n_vocab,
            languages=languages,
            is_multilingual=is_multilingual,
        )

    def language_of(self, token: int) -> str | None:
        """The code of a language token; None for any other token."""
        return self._language_of.get(token)

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`, all of them text: what looks like a special token is spelt out."""
        return list(self._bpe.encode(text, add_special_tokens=False).ids)

    def token_bytes(self, token: int) -> bytes:
        """The exact bytes of one token; none for special tokens and timestamps."""
        return self._bytes[token] if 0 <= token < self.eot else b""

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The bytes of `tokens` in a row, special tokens and timestamps left out."""
        return b"".join(map(self.token_bytes, tokens))

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`, special tokens left out; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def forced_prefix(
        self, language: str | None, task: Task, *, timestamps: bool
    ) -> tuple[int, ...]:
        """What the decoder is given before the first token of its own.

        With `language` None it is start of transcript alone, after which a multilingual model's
        own next token is the language. Raises ConfigError for what this model cannot do.
        """
        prefix = [self.sot]
        if language is not None and language not in self.languages:
            raise ConfigError(
                f"language: got {language!r}, this model knows {', '.join(self.languages)}"
            )
        if not self.is_multilingual:
            if task != "transcribe":
                raise ConfigError(f"task: got {task!r}, an English-only model can transcribe only")
        elif language is not None:
            prefix.append(self.languages[language])
            prefix.append(self.translate if task == "translate" else self.transcribe)
        if not timestamps:
            prefix.append(self.no_timestamps)
        return tuple(prefix)

    def prompt_tokens(self, text: str, limit: int) -> tuple[int, ...]:
        """`text` as what was said before: startofprev and its last `limit` tokens.

        Whisper allows `n_text_ctx // 2 - 1` of them. Blank text gives no tokens at all.
        """
        if not text.strip() or limit < 1:
            return ()
        return (self.sot_prev, *self.encode(" " + text.strip())[-limit:])

    @cached_property
    def non_speech_tokens(self) -> tuple[int, ...]:
        """Tokens to suppress so that speaker tags and sound descriptions are never written.

        Hyphens and quotes stay allowed within words, not at the start of one.
        """
        found = {tokens[0] for mark in (" -", " '") if (tokens := self.encode(mark))}
        for symbol in (*_NON_SPEECH_SYMBOLS.split(), *_MUSICAL_SIGNS):
            for tokens in (self.encode(symbol), self.encode(" " + symbol)):
                if len(tokens) == 1 or (tokens and symbol in _MUSICAL_SIGNS):
                    found.add(tokens[0])
        return tuple(sorted(found))

    def split_to_words(
        self, tokens: Sequence[int], language: str
    ) -> list[tuple[str, tuple[int, ...]]]:
        """Words as (text, tokens), in order; the texts joined are `decode(tokens)`.

        A word keeps its leading space. Punctuation is a word of its own, and so is a special
        token, whose text is empty. Languages written without spaces are split at characters.
        """
        characters = self._split_at_characters(tokens)
        if language in _UNSPACED_LANGUAGES:
            return characters
        words: list[tuple[str, tuple[int, ...]]] = []
        for text, group in characters:
            starts_word = (
                not words
                or group[0] >= self.eot
                or text.startswith(" ")
                or text.strip() in string.punctuation  # OpenAI's test: any run of ASCII's order
            )
            if starts_word:
                words.append((text, group))
            else:
                before, group_before = words[-1]
                words[-1] = (before + text, group_before + group)
        return words

    def _split_at_characters(self, tokens: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
        """Shortest groups of tokens that are whole characters; a broken last one is U+FFFD."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        groups: list[tuple[str, tuple[int, ...]]] = []
        text, group = "", list[int]()
        for token in tokens:
            text += decoder.decode(self.token_bytes(token))
            group.append(token)
            held_back, _ = decoder.getstate()
            if not held_back:
                groups.append((text, tuple(group)))
                text, group = "", []
        if group:
            groups.append((text + decoder.decode(b"", final=True), tuple(group)))
        return groups
