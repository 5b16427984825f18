from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from engine.audio.units import MAX_WINDOW_SAMPLES, SAMPLE_RATE
from training.corpus import Located
from training.data.samples import SampleMaker, cut, whole
from training.speech.shards import Utterance

AUDIO = Path("shard.s16")
WORD = SAMPLE_RATE // 2


def located(text: str, *, times: bool = True, audio: Path = AUDIO) -> Located:
    count = len(text.split())
    ends = tuple(WORD * (i + 1) for i in range(count)) if times else None
    return Located(audio, Utterance(text, 0, WORD * count, ends, "voice"))


SPOKEN = [located("One two, three four five."), located("Six seven."), located("Eight nine ten.")]
HUMAN = [replace(located("someone said this", times=False, audio=Path("people.s16")), weight=4)]
DIGITS = [
    located(digit, times=False, audio=Path("digits.s16"))
    for digit in ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
]


def test_a_cut_end_takes_the_words_that_are_not_heard_any_more() -> None:
    rng = Random(1)
    for _ in range(200):
        stretch = cut(SPOKEN[0], rng)
        if stretch.start == 0 and stretch.length < 5 * WORD:
            heard = stretch.length / WORD
            assert len(stretch.words) <= heard + 0.1
            assert len(stretch.words) >= heard - 1
            assert not stretch.words[-1].text.endswith(",")


def test_a_cut_beginning_leaves_the_words_behind_it_at_their_places() -> None:
    rng = Random(2)
    seen = set()
    for _ in range(200):
        stretch = cut(SPOKEN[0], rng)
        if stretch.start:
            assert stretch.start + stretch.length == 5 * WORD
            first = stretch.words[0]
            assert first.span is not None
            assert 0 <= first.span[0] <= SAMPLE_RATE // 50
            seen.add(first.text)
    assert seen == {"two,", "three", "four"}


def test_without_word_times_nothing_is_cut() -> None:
    assert cut(HUMAN[0], Random(3)) == whole(HUMAN[0])
    assert [word.span for word in whole(HUMAN[0]).words] == [None] * 3


def maker() -> SampleMaker:
    made = SampleMaker(Random(4))
    made.know(SPOKEN, HUMAN)
    return made


def test_samples_fit_a_window_and_words_lie_within_their_speech() -> None:
    drawing = maker()
    joined = 0
    for _ in range(1500):
        sample = drawing.draw()
        assert 0 < sample.length <= MAX_WINDOW_SAMPLES
        joined += len(sample.pieces) > 1
        end = 0
        for piece, speech in zip(sample.pieces, sample.speech, strict=True):
            assert piece.place == speech.start >= end
            end = speech.end
            assert end <= sample.length
            for word in speech.words:
                if word.span is not None:
                    assert speech.start <= word.span[0] < word.span[1] <= speech.end + 1
    assert joined > 100


def test_some_samples_have_no_speech_at_all() -> None:
    drawing = maker()
    silent = sum(not drawing.draw().pieces for _ in range(2000))
    assert 20 < silent < 100


def test_human_speech_is_heard_as_often_as_its_weight_says() -> None:
    drawing = maker()
    pieces = [piece for _ in range(3000) for piece in drawing.draw().pieces]
    human = sum(piece.source is HUMAN[0] for piece in pieces)
    assert human / len(pieces) == pytest.approx(4 / 7, abs=0.03)


def test_what_is_added_later_is_drawn_too_in_whatever_order_it_comes() -> None:
    later = [located(f"file {n}", audio=Path(f"{n}.s16")) for n in range(3)]
    drawing = SampleMaker(Random(5))
    assert not drawing
    drawing.know([later[0], later[2]], [])
    assert drawing.known == {later[0].audio, later[2].audio}
    drawing.know(later[1:2], [])
    pieces = [piece.source for _ in range(300) for piece in drawing.draw().pieces]
    assert set(pieces) == set(later)
    counts = [pieces.count(located) for located in later]
    assert max(counts) - min(counts) <= 12
    assert drawing.earlier_text() in {it.utterance.text for it in later}


def test_single_words_of_one_voice_are_heard_as_strings_with_their_places() -> None:
    drawing = maker()
    drawing.know([], DIGITS)
    samples = [drawing.draw() for _ in range(2000)]
    strings = [s for s in samples if any(p.source in DIGITS for p in s.pieces)]
    assert 70 < len(strings) < 180
    assert {len(sample.pieces) for sample in strings} == set(range(1, 9))
    for sample in strings:
        (speech,) = sample.speech
        said = [piece.source.utterance.text for piece in sample.pieces]
        assert said == [word.text for word in speech.words]
        ends = [word.span[1] for word in speech.words if word.span]
        assert [word.span[0] for word in speech.words if word.span] == [
            piece.place for piece in sample.pieces
        ]
        assert ends == sorted(ends)
        assert ends[-1] == speech.end <= sample.length


def test_few_single_words_are_heard_like_everything_else() -> None:
    drawing = SampleMaker(Random(6))
    drawing.know(DIGITS, DIGITS[:7])  # neither a synthesiser's words nor few of a person
    assert max(len(drawing.draw().speech) for _ in range(300)) > 1
