"""Vocabularies on disk: three formats, one shape.

Hugging Face's `tokenizer.json`, its older `vocab.json` + `merges.txt`, and OpenAI's `.tiktoken`
rank files come down to byte-level pieces, merges by rank and special tokens. What the tokens mean
is `tokenizer`'s to say.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.errors import CheckpointError

NUM_TIMESTAMPS: Final = 1501  # 0.00 to 30.00 s

# In the order of their tokens; large-v3 added the last one.
_PUBLISHED_LANGUAGES: Final = """
en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr
bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn
yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su
yue
"""
LANGUAGE_CODES: Final = tuple(_PUBLISHED_LANGUAGES.split())

SPECIALS_BEFORE_LANGUAGES: Final = ("<|endoftext|>", "<|startoftranscript|>")
SPECIALS_AFTER_LANGUAGES: Final = (
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)


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


def piece_bytes(piece: str) -> bytes:
    """The bytes that a byte-level piece stands for; KeyError for any other character."""
    return bytes(_BYTE_OF_CHAR[char] for char in piece)


def _bytes_piece(raw: bytes) -> str:
    return "".join(_CHAR_OF_BYTE[byte] for byte in raw)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What every format comes down to: byte-level pieces, merges by rank, special tokens."""

    ids: dict[str, int]
    merges: list[tuple[str, str]]
    specials: dict[str, int]


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


def read_tokenizer_json(path: Path) -> Vocabulary:
    """Hugging Face's one file. Raises CheckpointError."""
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
        return Vocabulary(ids=dict(model["vocab"]), merges=merges, specials=specials)
    except (KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"{path}: expected vocab, merges and added_tokens: {exc!r}") from exc


def read_vocab_and_merges(directory: Path) -> Vocabulary:
    """Hugging Face's older files, with `added_tokens.json` if there. Raises CheckpointError."""
    ids = read_json_object(directory / "vocab.json")
    added = directory / "added_tokens.json"
    specials = read_json_object(added) if added.is_file() else {}
    # The end of text is a GPT-2 token, so it may be in the vocabulary itself.
    specials |= {piece: i for piece, i in ids.items() if piece[:2] + piece[-2:] == "<||>"}
    path = directory / "merges.txt"
    merges = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip() or line.startswith("#version"):
            continue
        left, _, right = line.partition(" ")
        if not right:
            raise CheckpointError(f"{path}: expected two pieces in line {number}, found {line!r}")
        merges.append((left, right))
    return Vocabulary(ids=ids, merges=merges, specials=specials)


def read_tiktoken(path: Path, n_vocab: int) -> Vocabulary:
    """OpenAI's rank file: one `base64 rank` per line; the special tokens follow from the order."""
    ranks: dict[bytes, int] = {}
    try:
        for line in _read_text(path).splitlines():
            if line:
                encoded, rank = line.split()
                ranks[base64.b64decode(encoded)] = int(rank)
    except (ValueError, binascii.Error) as exc:
        raise CheckpointError(f"{path}: expected `base64 rank` lines: {exc}") from exc
    num_others = len(SPECIALS_BEFORE_LANGUAGES) + len(SPECIALS_AFTER_LANGUAGES) + NUM_TIMESTAMPS
    num_languages = n_vocab - len(ranks) - num_others
    if not 1 <= num_languages <= len(LANGUAGE_CODES):
        raise CheckpointError(
            f"{path}: {len(ranks)} text tokens leave {num_languages} languages in a model of "
            f"{n_vocab} tokens, expected 1 to {len(LANGUAGE_CODES)}"
        )
    specials = (
        *SPECIALS_BEFORE_LANGUAGES,
        *(f"<|{code}|>" for code in LANGUAGE_CODES[:num_languages]),
        *SPECIALS_AFTER_LANGUAGES,
    )
    # tiktoken joins any two neighbours whose join is a token, lowest rank first: as merges,
    # every way to split each token, in the order of the ranks.
    merges = [
        (_bytes_piece(token[:i]), _bytes_piece(token[i:]))
        for token in sorted(ranks, key=ranks.__getitem__)
        for i in range(1, len(token))
        if token[:i] in ranks and token[i:] in ranks
    ]
    return Vocabulary(
        ids={_bytes_piece(token): rank for token, rank in ranks.items()},
        merges=merges,
        specials={special: len(ranks) + i for i, special in enumerate(specials)},
    )
