import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import CheckpointError, ConfigError
from engine.text.tokenizer import Tokenizer
from engine.text.vocabulary import LANGUAGE_CODES, NUM_TIMESTAMPS
from tests.support.checkpoints import NUM_TEXT_TOKENS, SHAPES, make_tokenizer, older_files

EMBEDDED = Path(__file__).parents[3] / "engine" / "embedded"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("base"), "base")


@pytest.fixture(scope="module")
def english_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tiny.en"), "tiny.en")


def num_tokens(shape: str) -> int:
    return NUM_TEXT_TOKENS + 8 + len(SHAPES[shape].languages) + NUM_TIMESTAMPS


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.load(directory, n_vocab=num_tokens("base"), is_multilingual=True)


@pytest.fixture(scope="module")
def english(english_directory: Path) -> Tokenizer:
    return Tokenizer.load(english_directory, n_vocab=num_tokens("tiny.en"))


@pytest.fixture(scope="module")
def reference(directory: Path) -> Any:
    return transformers.WhisperTokenizer.from_pretrained(directory)


def rank_file(tokenizer: Tokenizer, path: Path) -> Path:
    """The same vocabulary as OpenAI writes it."""
    lines = [
        f"{base64.b64encode(tokenizer.token_bytes(token)).decode()} {token}\n"
        for token in range(tokenizer.eot)
    ]
    path.write_text("".join(lines), "utf-8")
    return path


def test_special_tokens_are_those_of_the_file(tokenizer: Tokenizer) -> None:
    eot = NUM_TEXT_TOKENS
    assert (tokenizer.eot, tokenizer.sot) == (eot, eot + 1)
    assert tokenizer.languages == {"en": eot + 2, "zh": eot + 3, "de": eot + 4, "es": eot + 5}
    assert (tokenizer.translate, tokenizer.transcribe) == (eot + 6, eot + 7)
    assert (tokenizer.sot_lm, tokenizer.sot_prev) == (eot + 8, eot + 9)
    assert (tokenizer.no_speech, tokenizer.no_timestamps) == (eot + 10, eot + 11)
    assert tokenizer.timestamp_begin == eot + 12
    assert tokenizer.language_of(eot + 4) == "de"
    assert tokenizer.language_of(eot + 6) is None


@given(text=st.text())
def test_text_survives_encoding_and_decoding(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert all(token < tokenizer.eot for token in tokens)


@given(text=st.text())
def test_encoding_is_that_of_transformers_where_text_names_no_special_token(
    tokenizer: Tokenizer, reference: Any, text: str
) -> None:
    if "<|" not in text:
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False)


def test_special_tokens_in_text_are_only_text(tokenizer: Tokenizer) -> None:
    text = "<|endoftext|><|startoftranscript|> ignore <|en|><|1.00|>"
    tokens = tokenizer.encode(text)
    assert max(tokens) < tokenizer.eot
    assert tokenizer.decode(tokens) == text
    assert max(tokenizer.prompt_tokens(text, 100)[1:]) < tokenizer.eot


def test_decoding_leaves_out_special_tokens_and_timestamps(tokenizer: Tokenizer) -> None:
    words = tokenizer.encode(" hello")
    tokens = [tokenizer.sot, tokenizer.timestamp_begin, *words, tokenizer.timestamp_begin + 50]
    assert tokenizer.decode([*tokens, tokenizer.eot]) == " hello"
    assert tokenizer.token_bytes(tokenizer.eot) == b""
    assert tokenizer.token_bytes(-1) == b""


def test_bytes_of_tokens_are_exact_within_characters(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("é語")
    assert tokenizer.decode_bytes(tokens) == "é語".encode()
    assert b"".join(tokenizer.token_bytes(token) for token in tokens) == "é語".encode()


@given(text=st.text())
def test_all_three_formats_encode_alike(
    tokenizer: Tokenizer, others: Sequence[Tokenizer], text: str
) -> None:
    for other in others:
        assert other.encode(text) == tokenizer.encode(text)


@pytest.fixture(scope="module")
def others(
    tokenizer: Tokenizer, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Tokenizer]:
    target = tmp_path_factory.mktemp("others")
    return [
        Tokenizer.load(source, n_vocab=tokenizer.n_vocab, is_multilingual=True)
        for source in (
            older_files(directory, target),
            rank_file(tokenizer, target / "multilingual.tiktoken"),
        )
    ]


def test_older_files_and_rank_files_have_the_same_special_tokens(
    tokenizer: Tokenizer, others: Sequence[Tokenizer]
) -> None:
    older, ranks = others
    assert older.languages == tokenizer.languages
    assert tuple(ranks.languages) == LANGUAGE_CODES[:4]
    for other in others:
        assert other.eot == tokenizer.eot
        assert other.no_speech == tokenizer.no_speech
        assert other.timestamp_begin == tokenizer.timestamp_begin
        assert other.non_speech_tokens == tokenizer.non_speech_tokens


def test_languages_of_the_checkpoint_win_over_the_tokenizer_s(directory: Path) -> None:
    tokenizer = Tokenizer.load(
        directory,
        n_vocab=num_tokens("base"),
        lang_to_id={"<|de|>": 404, "<|en|>": 402},
        is_multilingual=True,
    )
    assert list(tokenizer.languages.items()) == [("en", 402), ("de", 404)]


def test_whether_a_model_is_multilingual_is_said_or_follows_from_its_size(directory: Path) -> None:
    assert not Tokenizer.load(directory, n_vocab=51_864).is_multilingual
    assert Tokenizer.load(directory, n_vocab=51_865).is_multilingual
    assert Tokenizer.load(directory, n_vocab=51_864, is_multilingual=True).is_multilingual
    assert not Tokenizer.load(directory, n_vocab=51_866, is_multilingual=False).is_multilingual


def test_prefix_of_a_multilingual_model(tokenizer: Tokenizer) -> None:
    sot, german = tokenizer.sot, tokenizer.languages["de"]
    assert tokenizer.forced_prefix("de", "transcribe", timestamps=True) == (
        sot,
        german,
        tokenizer.transcribe,
    )
    assert tokenizer.forced_prefix("de", "translate", timestamps=False) == (
        sot,
        german,
        tokenizer.translate,
        tokenizer.no_timestamps,
    )
    assert tokenizer.forced_prefix(None, "transcribe", timestamps=True) == (sot,)


def test_prefix_of_an_english_only_model_names_no_language(english: Tokenizer) -> None:
    assert list(english.languages) == ["en"]
    for language in ("en", None):
        assert english.forced_prefix(language, "transcribe", timestamps=True) == (english.sot,)
    assert english.forced_prefix("en", "transcribe", timestamps=False) == (
        english.sot,
        english.no_timestamps,
    )


def test_what_the_model_cannot_do_is_refused(tokenizer: Tokenizer, english: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="got 'xx', this model knows en, zh, de, es"):
        tokenizer.forced_prefix("xx", "transcribe", timestamps=True)
    with pytest.raises(ConfigError, match="got 'de', this model knows en"):
        english.forced_prefix("de", "transcribe", timestamps=True)
    with pytest.raises(ConfigError, match="English-only model can transcribe only"):
        english.forced_prefix("en", "translate", timestamps=True)


def test_prompt_is_the_end_of_the_text_behind_its_marker(
    tokenizer: Tokenizer, reference: Any
) -> None:
    text = "  nobody leads them \n"
    prompt = tokenizer.prompt_tokens(text, 223)
    assert list(prompt) == reference.get_prompt_ids(text, return_tensors="np").tolist()
    assert tokenizer.prompt_tokens(text, 2) == (tokenizer.sot_prev, *prompt[-2:])
    assert tokenizer.prompt_tokens(" \n", 223) == ()
    assert tokenizer.prompt_tokens(text, 0) == ()


def openai_words(
    tokenizer: Tokenizer, tokens: list[int], *, on_spaces: bool
) -> list[tuple[str, tuple[int, ...]]]:
    """openai/whisper's two split functions, for text that is whole characters."""
    groups: list[tuple[str, tuple[int, ...]]] = []
    current: list[int] = []
    for token in tokens:
        current.append(token)
        text = tokenizer.decode(current)
        if "\ufffd" not in text:
            groups.append((text, tuple(current)))
            current = []
    if not on_spaces:
        return groups
    words: list[tuple[str, tuple[int, ...]]] = []
    for text, group in groups:
        punctuation = text.strip() in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
        if not words or text.startswith(" ") or punctuation:
            words.append((text, group))
        else:
            words[-1] = (words[-1][0] + text, words[-1][1] + group)
    return words


plain = st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"]))


@given(text=plain)
def test_words_are_openai_s(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    for language, on_spaces in (("en", True), ("zh", False)):
        words = tokenizer.split_to_words(tokens, language)
        assert words == openai_words(tokenizer, tokens, on_spaces=on_spaces)


def test_words_keep_their_space_and_punctuation_stands_alone(tokenizer: Tokenizer) -> None:
    words = tokenizer.split_to_words(tokenizer.encode(" Thank you, again."), "en")
    assert [text for text, _ in words] == [" Thank", " you", ",", " again", "."]
    characters = tokenizer.split_to_words(tokenizer.encode("語学"), "ja")
    assert [text for text, _ in characters] == ["語", "学"]


@given(data=st.data())
@settings(max_examples=50)
def test_words_hold_every_token_once_and_add_up_to_the_text(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    tokens = data.draw(st.lists(st.integers(0, tokenizer.n_vocab - 1)))
    for language in ("en", "ja"):
        words = tokenizer.split_to_words(tokens, language)
        assert [token for _, group in words for token in group] == tokens
        assert "".join(text for text, _ in words) == tokenizer.decode(tokens)


def test_non_speech_tokens_are_symbols_and_never_whole_letters(tokenizer: Tokenizer) -> None:
    suppressed = set(tokenizer.non_speech_tokens)
    for symbol in '"()[]#@_':
        assert tokenizer.encode(symbol)[0] in suppressed
    for allowed in "!?.,'-":
        assert tokenizer.encode(allowed)[0] not in suppressed
    for letter in "aZ9":
        assert tokenizer.encode(letter)[0] not in suppressed
    first_byte_of_notes = tokenizer.encode("♪")[0]
    assert first_byte_of_notes in suppressed
    assert tokenizer.token_bytes(first_byte_of_notes)[0] == 0xE2


def test_the_embedded_tokenizer_is_multilingual_with_one_language() -> None:
    tokenizer = Tokenizer.load(EMBEDDED, n_vocab=3046, is_multilingual=True)
    assert tokenizer.languages == {"en": 1538}
    assert tokenizer.forced_prefix("en", "transcribe", timestamps=False) == (1537, 1538, 1540, 1544)


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected tokenizer\.json, vocab\.json"):
        Tokenizer.load(tmp_path, n_vocab=51_865)


def test_a_model_with_fewer_tokens_than_its_tokenizer_is_refused(directory: Path) -> None:
    with pytest.raises(CheckpointError, match="found n_vocab 500"):
        Tokenizer.load(directory, n_vocab=500)


def test_a_tokenizer_that_is_not_whisper_s_is_refused(directory: Path, tmp_path: Path) -> None:
    document = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    document["added_tokens"] = document["added_tokens"][:1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(CheckpointError, match=r"<\|startoftranscript\|>, .*found no such tokens"):
        Tokenizer.load(tmp_path, n_vocab=51_865)
