from pathlib import Path
from random import Random

import pytest

from engine.text.tokenizer import Tokenizer
from tests.support.recipe import make_tokenizer
from training.data.samples import Sample, Speech, Word
from training.data.targets import (
    CHARACTERS,
    IGNORED,
    Target,
    TargetMaker,
    uncertain_tokens,
)
from training.vocabulary import load_tokens

HELLO = Speech(3_200, 16_000, (Word("Hello,", (3_200, 9_600)), Word("you.", (9_600, 16_000))), True)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokens(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def drawn(tokens: Tokenizer, *speech: Speech, count: int = 200) -> list[Target]:
    maker = TargetMaker(tokens, Random(1))
    return [maker.target(Sample(16_000, (), speech), "Before that.") for _ in range(count)]


def test_both_prompt_forms_with_and_without_timestamps_and_earlier_text(tokens: Tokenizer) -> None:
    heads = set()
    for target in drawn(tokens, HELLO):
        at = target.inputs.index(tokens.sot)
        assert at == 0 or target.inputs[0] == tokens.sot_prev
        after = target.inputs[at + 1 :]
        heads.add((at > 0, tokens.transcribe in after, tokens.no_timestamps in after))
    assert len(heads) == 8


def test_labels_are_the_text_and_its_end_and_nothing_that_is_forced(tokens: Tokenizer) -> None:
    for target in drawn(tokens, HELLO):
        labels = [label for label in target.labels if label != IGNORED]
        assert tokens.decode(labels) == " Hello, you."
        assert labels[-1] == tokens.eot
        forced = {tokens.sot, tokens.transcribe, tokens.no_timestamps, tokens.sot_prev}
        assert not forced & set(labels)
        assert len(target.inputs) == len(target.labels) == len(target.spans) == len(target.certain)


def test_each_input_is_the_label_before_it(tokens: Tokenizer) -> None:
    for target in drawn(tokens, HELLO):
        at = target.labels.index(next(t for t in target.labels if t == tokens.encode(" Hello,")[0]))
        assert target.labels[at:-1] == target.inputs[at + 1 :]


def test_timestamps_say_where_speech_begins_and_ends(tokens: Tokenizer) -> None:
    begin = tokens.timestamp_begin
    stamped = [t for t in drawn(tokens, HELLO) if max(t.labels) >= begin]
    assert stamped
    for target in stamped:
        assert [label - begin for label in target.labels if label >= begin] == [10, 50]


def test_without_speech_the_first_answer_is_that_there_is_none(tokens: Tokenizer) -> None:
    for target in drawn(tokens):
        assert not target.characters
        assert not target.words
        assert target.labels[-1] == tokens.eot
        labels = [label for label in target.labels if label != IGNORED]
        assert tokens.decode(labels) == ""
        if tokens.no_timestamps in target.inputs:
            assert labels[0] == tokens.no_speech


def test_words_are_characters_at_their_positions(tokens: Tokenizer) -> None:
    (target,) = drawn(tokens, HELLO, count=1)
    assert "".join(CHARACTERS[code] for code in target.characters) == "hello you"
    assert [word.span for word in target.words] == [(10, 30), (30, 50)]
    known = [span for span in target.spans if span[0] >= 0]
    assert set(known) == {(10, 30), (30, 50)}


def test_what_is_not_certain_is_marked_up_to_the_end(tokens: Tokenizer) -> None:
    unsure = Speech(0, 16_000, (Word("hello", None), Word("you", None)), False)
    for target in drawn(tokens, unsure):
        answered = [
            (label, certain)
            for label, certain in zip(target.labels, target.certain, strict=True)
            if label != IGNORED
        ]
        assert not any(known for label, known in answered if label < tokens.eot)
        assert answered[-1] == (tokens.eot, False)


def test_marks_and_capitals_stand_for_what_is_not_certain(tokens: Tokenizer) -> None:
    texts = {tokens.decode([token]) for token in uncertain_tokens(tokens)}
    assert {",", ".", "?"} <= texts
    assert any(text[0] == " " and text[1:2].isupper() for text in texts)
    assert not any(text.strip().islower() for text in texts)


def test_a_target_never_outgrows_the_decoder(tokens: Tokenizer, tmp_path: Path) -> None:
    long = Speech(0, 16_000, tuple(Word("window", None) for _ in range(600)), True)
    assert all(len(target.inputs) == 440 for target in drawn(tokens, long, count=5))
