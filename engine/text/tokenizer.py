"""Whisper's tokens: text to tokens and back, special tokens, prompts, prefixes, words.

Decides what a token id means for one checkpoint. Three formats are read, all of them byte-level
BPE: Hugging Face's `tokenizer.json`, its older `vocab.json` + `merges.txt`, and OpenAI's
`.tiktoken` rank files. The vocabulary is laid out as OpenAI did (openai/whisper tokenizer.py):
text, end of text, start of transcript, one token per language, translate, transcribe,
startoflm, startofprev, nospeech, notimestamps, then 1501 timestamps 20 ms apart.
"""

import base64
import binascii
import codecs
import json
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from engine.errors import CheckpointError, ConfigError
from engine.events import Task

NUM_TIMESTAMPS: Final = 1501  # 0.00 to 30.00 s

# Published checkpoints: 51864 tokens are English only, 51865 (99 languages) and 51866 are not.
MULTILINGUAL_NUM_TOKENS: Final = 51_865

# In the order of their tokens; large-v3 added the last one.
_PUBLISHED_LANGUAGES: Final = """
en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr
bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn
yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su
yue
"""
LANGUAGE_CODES: Final = tuple(_PUBLISHED_LANGUAGES.split())

# Written without spaces between words: split at characters (openai/whisper tokenizer.py).
_UNSPACED_LANGUAGES: Final = frozenset({"zh", "ja", "th", "lo", "my", "yue"})

_SPECIALS_BEFORE_LANGUAGES: Final = ("<|endoftext|>", "<|startoftranscript|>")
_SPECIALS_AFTER_LANGUAGES: Final = (
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)

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


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: itself where it prints, else U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in printable}
    for byte in range(0x100):
        if byte not in alphabet:
            alphabet[byte] = chr(0x100 + len(alphabet) - len(printable))
    return alphabet


_CHAR_OF_BYTE: Final = _byte_alphabet()
_BYTE_OF_CHAR: Final = {char: byte for byte, char in _CHAR_OF_BYTE.items()}


def _piece_bytes(piece: str) -> bytes:
    return bytes(_BYTE_OF_CHAR[char] for char in piece)


def _bytes_piece(raw: bytes) -> str:
    return "".join(_CHAR_OF_BYTE[byte] for byte in raw)


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """What every format comes down to: byte-level pieces, merges by rank, special tokens."""

    ids: dict[str, int]
    merges: list[tuple[str, str]]
    specials: dict[str, int]


class Tokenizer:
    """The tokens of one checkpoint. Immutable; safe to share between threads.

    Everything below `eot` is text; `eot` and above are special, `timestamp_begin` and above are
    timestamps. `languages` maps ISO 639-1 codes to tokens in token order; an English-only model
    has `en` alone, which its prefix does not contain.
    """

    def __init__(
        self,
        vocabulary: _Vocabulary,
        *,
        name: str,
        n_vocab: int,
        languages: Mapping[str, int] | None,
        is_multilingual: bool | None,
    ) -> None:
        specials = {_RENAMED_SPECIALS.get(k, k): i for k, i in vocabulary.specials.items()}
        missing = [
            special
            for special in (*_SPECIALS_BEFORE_LANGUAGES, *_SPECIALS_AFTER_LANGUAGES)
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
            bytes_of = {i: _piece_bytes(piece) for piece, i in text_ids.items()}
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
            vocabulary, file = _read_tiktoken(source, n_vocab), source
        elif (file := source / "tokenizer.json").is_file():
            vocabulary = _read_tokenizer_json(file)
        elif (file := source / "vocab.json").is_file():
            vocabulary = _read_vocab_and_merges(source)
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


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CheckpointError(f"{path}: cannot be read: {exc}") from exc


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a checkpoint's JSON file; raises CheckpointError, naming the file."""
    try:
        value = json.loads(_read_text(path))
    except ValueError as exc:
        raise CheckpointError(f"{path}: expected JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _read_tokenizer_json(path: Path) -> _Vocabulary:
    document = read_json_object(path)
    model = document.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise CheckpointError(f"{path}: expected a BPE model")
    try:
        # Files written by `tokenizers` before 0.20 have each merge as one string.
        merges = []
        for pair in model["merges"]:
            left, right = pair.split(" ") if isinstance(pair, str) else pair
            merges.append((left, right))
        specials = {token["content"]: int(token["id"]) for token in document["added_tokens"]}
        return _Vocabulary(ids=dict(model["vocab"]), merges=merges, specials=specials)
    except (KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"{path}: expected vocab, merges and added_tokens: {exc!r}") from exc


def _read_vocab_and_merges(directory: Path) -> _Vocabulary:
    ids = read_json_object(directory / "vocab.json")
    added = directory / "added_tokens.json"
    specials = read_json_object(added) if added.is_file() else {}
    # The end of text is a GPT-2 token, so it may be in the vocabulary itself.
    specials |= {piece: i for piece, i in ids.items() if piece.startswith("<|") and len(piece) > 4}
    path = directory / "merges.txt"
    merges = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip() or line.startswith("#version"):
            continue
        left, _, right = line.partition(" ")
        if not right:
            raise CheckpointError(f"{path}: expected two pieces in line {number}, found {line!r}")
        merges.append((left, right))
    return _Vocabulary(ids=ids, merges=merges, specials=specials)


def _read_tiktoken(path: Path, n_vocab: int) -> _Vocabulary:
    """OpenAI's rank file: one `base64 rank` per line; the special tokens follow from the order."""
    ranks: dict[bytes, int] = {}
    try:
        for line in _read_text(path).splitlines():
            if line:
                encoded, rank = line.split()
                ranks[base64.b64decode(encoded)] = int(rank)
    except (ValueError, binascii.Error) as exc:
        raise CheckpointError(f"{path}: expected `base64 rank` lines: {exc}") from exc
    num_others = len(_SPECIALS_BEFORE_LANGUAGES) + len(_SPECIALS_AFTER_LANGUAGES) + NUM_TIMESTAMPS
    num_languages = n_vocab - len(ranks) - num_others
    if not 1 <= num_languages <= len(LANGUAGE_CODES):
        raise CheckpointError(
            f"{path}: {len(ranks)} text tokens leave {num_languages} languages in a model of "
            f"{n_vocab} tokens, expected 1 to {len(LANGUAGE_CODES)}"
        )
    specials = (
        *_SPECIALS_BEFORE_LANGUAGES,
        *(f"<|{code}|>" for code in LANGUAGE_CODES[:num_languages]),
        *_SPECIALS_AFTER_LANGUAGES,
    )
    # tiktoken joins any two neighbours whose join is a token, lowest rank first: as merges,
    # every way to split each token, in the order of the ranks.
    merges = [
        (_bytes_piece(token[:i]), _bytes_piece(token[i:]))
        for token in sorted(ranks, key=ranks.__getitem__)
        for i in range(1, len(token))
        if token[:i] in ranks and token[i:] in ranks
    ]
    return _Vocabulary(
        ids={_bytes_piece(token): rank for token, rank in ranks.items()},
        merges=merges,
        specials={special: len(ranks) + i for i, special in enumerate(specials)},
    )
