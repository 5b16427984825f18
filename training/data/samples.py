"""What one training sample holds: which stretches of audio, where, and what is said in them.

Decides without touching audio. Times are in samples of the mixed audio, after the change of
speed. Partial windows are what the service decodes, so some speech ends or begins in the middle
of a sentence, or ends in the middle of a word, and its text is cut accordingly.
"""

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from engine.audio.units import MAX_WINDOW_SAMPLES, samples_from_ms, samples_from_seconds
from training.corpus import Located
from training.speech.shards import Utterance

# Shares of all samples; the rest are single utterances.
_NOTHING_SHARE: Final = 0.025
_JOINED_SHARE: Final = 0.14
_CUT_SHARE: Final = 0.18
_CUT_END_SHARE: Final = 0.75  # the others lose their beginning
_CUT_JOINED_SHARE: Final = 0.1
_STRING_SHARE: Final = 0.06
_LONGEST_STRING: Final = 8  # words
_FEWEST_SINGLE_WORDS: Final = 8  # of one voice
_LONGEST_SINGLE_WORD: Final = samples_from_seconds(1.5)

_SLOWEST, _FASTEST = 0.85, 1.18
_SAME_SPEED_SHARE: Final = 0.25
_LONGEST_JOINED: Final = samples_from_seconds(28)
_MOST_JOINED: Final = 8
_SHORTEST: Final = samples_from_ms(400)
# A word of which no more than this is missing can still be heard.
_HEARD_WITHOUT: Final = samples_from_ms(40)
_LEAD: Final = samples_from_ms(10)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of an utterance: `length` source samples from `start`, played at `speed`.

    It is placed at `place` of the sample, `gain` times as loud.
    """

    source: Located
    start: int
    length: int
    speed: float
    gain: float
    place: int


@dataclass(frozen=True, slots=True)
class Word:
    """A written word and where it is said; None where nobody knows."""

    text: str
    span: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Speech:
    """What is said from `start` to `end`, in order."""

    start: int
    end: int
    words: tuple[Word, ...]
    certain: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """`length` samples of audio made of `pieces`; no speech at all without any."""

    length: int
    pieces: tuple[Piece, ...]
    speech: tuple[Speech, ...]


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of an utterance with its words, in source samples from `start`."""

    source: Located
    start: int
    length: int
    words: tuple[Word, ...]


class SampleMaker:
    """Draws samples without end. Touched only by its owner.

    Every utterance is heard as often as its weight says before any is heard again. Single words
    of a person who says many, digits above all, are heard as strings instead, which are a fixed
    share of all samples.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._all: list[Located] = []
        self._left: list[Located] = []
        self._single_words: dict[str, list[Located]] = {}
        self._known: set[Path] = set()

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def known(self) -> Set[Path]:
        """The raw files whose utterances it draws from."""
        return self._known

    def know(self, synthetic: Sequence[Located], people: Sequence[Located]) -> None:
        """Take up what has been added to the corpus since; none of it may be known."""
        found = (*synthetic, *people)
        self._known.update(located.audio for located in found)
        singles: defaultdict[str, list[Located]] = defaultdict(list)
        for located in people:
            if _is_single_word(located.utterance):
                singles[located.utterance.voice].append(located)
        many = {v for v, said in singles.items() if len(said) >= _FEWEST_SINGLE_WORDS}
        for voice in many:
            self._single_words.setdefault(voice, []).extend(singles[voice])
        new = [
            located
            for located in found
            if located.utterance.voice not in many or not _is_single_word(located.utterance)
            for _ in range(located.weight)
        ]
        self._all += new
        self._left += new
        self._rng.shuffle(self._left)

    def draw(self) -> Sample:
        """The next sample."""
        rng = self._rng
        kind = rng.random()
        if kind < _NOTHING_SHARE:
            return Sample(samples_from_seconds(rng.uniform(0.6, 9)), (), ())
        if kind < _NOTHING_SHARE + _JOINED_SHARE:
            return self._joined()
        if self._single_words and kind > 1 - _STRING_SHARE:
            return self._string()
        return self._placed([self._stretch(_CUT_SHARE)])

    def earlier_text(self) -> str:
        """Some text as what was said before a sample."""
        return self._rng.choice(self._all).utterance.text

    def _string(self) -> Sample:
        """Single words of one voice, one behind the other, as one speech."""
        rng = self._rng
        said = self._single_words[rng.choice(list(self._single_words))]
        speed = rng.uniform(_SLOWEST, _FASTEST)
        pieces, words = [], []
        at = end = start = self._silence(0.6)
        for located in rng.choices(said, k=rng.randint(1, _LONGEST_STRING)):
            utterance = located.utterance
            gain = rng.uniform(0.6, 1.4)
            pieces.append(Piece(located, 0, utterance.length, speed, gain, at))
            end = at + int(utterance.length / speed)
            words.append(Word(utterance.text, (at, end)))
            at = end + samples_from_seconds(rng.uniform(0, 0.4))
        certain = all(piece.source.utterance.certain for piece in pieces)
        length = max(end + self._silence(1.0), _SHORTEST)
        return Sample(length, tuple(pieces), (Speech(start, end, tuple(words), certain),))

    def _joined(self) -> Sample:
        rng = self._rng
        most = rng.uniform(6, 28) if rng.random() < 0.4 else 9.0
        limit = min(samples_from_seconds(most), _LONGEST_JOINED)
        stretches: list[_Stretch] = []
        total = 0
        while len(stretches) < _MOST_JOINED:
            stretch = self._stretch(_CUT_JOINED_SHARE if stretches else 0.0)
            longest = round(stretch.length / _SLOWEST) + samples_from_seconds(1)
            if stretches and total + longest > limit:
                break
            stretches.append(stretch)
            total += longest
        return self._placed(stretches)

    def _stretch(self, cut_share: float) -> _Stretch:
        if not self._left:
            self._left = list(self._all)
            self._rng.shuffle(self._left)
        located = self._left.pop()
        if self._rng.random() < cut_share:
            return cut(located, self._rng)
        return whole(located)

    def _placed(self, stretches: Sequence[_Stretch]) -> Sample:
        """One behind the other, with silence around them."""
        rng = self._rng
        pieces, speech = [], []
        at = self._silence(0.6)
        for stretch in stretches:
            same = rng.random() < _SAME_SPEED_SHARE
            speed = 1.0 if same else rng.uniform(_SLOWEST, _FASTEST)
            length = int(stretch.length / speed)
            if at + length > MAX_WINDOW_SAMPLES:
                break
            gain = rng.uniform(0.5, 1.5)
            pieces.append(Piece(stretch.source, stretch.start, stretch.length, speed, gain, at))
            words = tuple(_moved(word, speed, at) for word in stretch.words)
            certain = stretch.source.utterance.certain
            speech.append(Speech(at, at + length, words, certain))
            at += length + self._silence(1.0)
        length = min(max(at, _SHORTEST), MAX_WINDOW_SAMPLES)
        return Sample(length, tuple(pieces), tuple(speech))

    def _silence(self, most_s: float) -> int:
        seconds = self._rng.uniform(0, most_s) if self._rng.random() < 0.8 else 0.02
        return samples_from_seconds(seconds)


def _is_single_word(utterance: Utterance) -> bool:
    return utterance.length <= _LONGEST_SINGLE_WORD and len(utterance.text.split()) == 1


def whole(located: Located) -> _Stretch:
    """All of an utterance."""
    utterance = located.utterance
    return _Stretch(located, 0, utterance.length, _words(utterance))


def cut(located: Located, rng: Random) -> _Stretch:
    """An utterance without its end, or without its beginning; whole where words have no times.

    Its end goes anywhere, within words too; its beginning goes up to the start of a word.
    """
    utterance = located.utterance
    words = _words(utterance)
    ends = utterance.word_ends
    if ends is None or len(words) < 3:
        return whole(located)
    if rng.random() < _CUT_END_SHARE:
        length = round(rng.uniform(0.3, 0.97) * utterance.length)
        heard = sum(end <= length + _HEARD_WITHOUT for end in ends)
        if heard == 0:
            return whole(located)
        *kept, last = words[:heard]
        text = last.text.rstrip(",;") if heard < len(words) else last.text
        span = None if last.span is None else (last.span[0], min(last.span[1], length))
        kept.append(Word(text, span))
        return _Stretch(located, 0, length, tuple(kept))
    first = rng.randrange(1, len(words) - 1)
    start = max(0, ends[first - 1] - _LEAD)
    later = tuple(_moved(word, 1.0, -start) for word in words[first:])
    return _Stretch(located, start, utterance.length - start, later)


def _words(utterance: Utterance) -> tuple[Word, ...]:
    texts = utterance.text.split()
    ends = utterance.word_ends
    if ends is None or len(ends) != len(texts):
        return tuple(Word(text, None) for text in texts)
    begins = (0, *ends[:-1])
    return tuple(Word(t, (b, e)) for t, b, e in zip(texts, begins, ends, strict=True))


def _moved(word: Word, speed: float, by: int) -> Word:
    if word.span is None:
        return word
    begin, end = word.span
    return Word(word.text, (round(begin / speed) + by, round(end / speed) + by))
