import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import Samples
from engine.config import QualityThresholds
from engine.decoding.hypothesis import Hypothesis, Token
from engine.decoding.quality import Verdict, compression_ratio, judge, loop_start

THRESHOLDS = QualityThresholds()
SURE, UNSURE = -0.3, -1.5


def hypothesis(logprob: float, no_speech_prob: float) -> Hypothesis:
    tokens = (Token(1, logprob, 0),)
    return Hypothesis(tokens, Samples(0), no_speech_prob, eot_logprob=logprob)


@pytest.mark.parametrize(
    ("logprob", "no_speech_prob", "text", "looped", "verdict"),
    [
        (SURE, 0.1, "hello", False, Verdict.KEEP),
        (SURE, 0.9, "hello", False, Verdict.KEEP),
        (UNSURE, 0.1, "hello", False, Verdict.RETRY),
        (UNSURE, 0.9, "hello", False, Verdict.DROP),
        (UNSURE, 0.9, "hello " * 50, True, Verdict.DROP),
        (SURE, 0.1, "hello " * 50, False, Verdict.RETRY),
        (SURE, 0.9, "hello", True, Verdict.RETRY),
        (SURE, 0.1, "hello", True, Verdict.RETRY),
        (SURE, 0.1, "", False, Verdict.KEEP),
        (-1.0, 0.6, "hello", False, Verdict.KEEP),
    ],
)
def test_the_gates_give_whispers_verdict(
    logprob: float, no_speech_prob: float, text: str, looped: bool, verdict: Verdict
) -> None:
    assert judge(hypothesis(logprob, no_speech_prob), text, THRESHOLDS, looped=looped) is verdict


def test_the_compression_ratio_is_that_of_utf8_bytes() -> None:
    assert compression_ratio("") == 0.0
    text = "ähnlich " * 20
    data = text.encode()
    assert compression_ratio(text) == len(data) / len(zlib.compress(data))
    assert (
        compression_ratio("The starlings turn before they settle.") < 2.4 < compression_ratio(text)
    )


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [7],
        [1, 2] * 3,  # no, no, no,
        [1, 2] * 5,
        [7] * 11,
        [*range(8)] * 3,
        [1] * 20 + [2],  # a loop that ended is no loop
        [*range(25)] * 4,  # longer than any cycle that is looked for
    ],
)
def test_what_is_no_loop(tokens: list[int]) -> None:
    assert loop_start(tokens) is None


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        ([7] * 12, [7]),
        ([1, 2] * 6, [1, 2]),
        ([9, 8, *([1, 2, 3] * 4)], [9, 8, 1, 2, 3]),
        ([*range(24)] * 4, [*range(24)]),
        ([9, *([1, 2, 3, 4] * 4), 1, 2], [9, 1, 2, 3, 4]),
    ],
)
def test_the_text_of_a_loop_keeps_its_words_once(tokens: list[int], kept: list[int]) -> None:
    start = loop_start(tokens)
    assert start is not None
    assert tokens[:start] == kept


@given(
    st.lists(st.integers(0, 99), max_size=10),
    st.lists(st.integers(100, 199), min_size=1, max_size=24, unique=True),
    st.integers(4, 8),
    st.data(),
)
def test_a_loop_is_found_behind_any_text(
    before: list[int], cycle: list[int], rounds: int, data: st.DataObject
) -> None:
    rounds = max(rounds, -(-12 // len(cycle)))
    broken_off = data.draw(st.integers(0, len(cycle) - 1))
    tokens = before + cycle * rounds + cycle[:broken_off]
    start = loop_start(tokens)
    assert start is not None
    assert tokens[:start] == before + cycle


@given(st.lists(st.integers(0, 2), max_size=60))
def test_a_loop_is_nothing_but_repetition(tokens: list[int]) -> None:
    start = loop_start(tokens)
    if start is None:
        return
    rest = tokens[start:]
    assert any(
        all(token == tokens[start - cycle + index] for index, token in enumerate(rest))
        for cycle in range(1, start + 1)
    )
