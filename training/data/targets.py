"""What the decoder and the CTC head are to say for one sample.

Both prompt forms that runtimes use are trained, `sot` alone and the full one, with and without
timestamps, with and without earlier text. Tokens that a runtime forces are no targets.
"""

import re
from dataclasses import dataclass
from random import Random
from typing import Final

from engine.audio.units import SAMPLES_PER_POSITION
from engine.text.tokenizer import Tokenizer
from engine.text.vocabulary import NUM_TIMESTAMPS
from training.data.samples import Sample, Speech

IGNORED: Final = -100
# CTC's alphabet; the blank comes behind it.
CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyz' "
BLANK: Final = len(CHARACTERS)
_CODES: Final = {character: i for i, character in enumerate(CHARACTERS)}
_MOST_TOKENS: Final = 440
_EARLIER_SHARE: Final = 0.08
_FULL_PROMPT_SHARE: Final = 0.6
_TIMESTAMPS_SHARE: Final = 0.5

# In encoder positions; (-1, -1) where nobody knows.
Span = tuple[int, int]
_UNKNOWN: Final[Span] = (-1, -1)


@dataclass(frozen=True, slots=True)
class WordTarget:
    """A word for CTC alone: the positions it is said in, and its characters."""

    span: Span
    characters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """`inputs`, `labels`, `spans` and `certain` are as long as each other, a step each.

    `spans` says where in the audio the label is said, `certain` whether its case and the lack
    of a mark before it are known. `characters` is all that is said, `words` where it is known.
    """

    inputs: tuple[int, ...]
    labels: tuple[int, ...]
    spans: tuple[Span, ...]
    certain: tuple[bool, ...]
    characters: tuple[int, ...]
    words: tuple[WordTarget, ...]


class TargetMaker:
    """Writes the targets of samples. Touched only by its owner."""

    def __init__(self, tokens: Tokenizer, rng: Random) -> None:
        self._tokens = tokens
        self._rng = rng
        self._pieces: dict[str, list[int]] = {}

    def target(self, sample: Sample, earlier_text: str) -> Target:
        """The target of `sample`; now and then `earlier_text` stands before it as a prompt."""
        rng, tokens = self._rng, self._tokens
        has_timestamps = rng.random() < _TIMESTAMPS_SHARE
        is_full = rng.random() < _FULL_PROMPT_SHARE
        prompt: list[int] = []
        if rng.random() < _EARLIER_SHARE:
            prompt = [tokens.sot_prev]
            for word in earlier_text.split():
                prompt += self._encode(word)
        said: list[tuple[int, Span, bool]] = []
        if not sample.speech and has_timestamps:
            said.append((tokens.timestamp_begin, _UNKNOWN, True))
        for speech in sample.speech:
            said += self._said(speech, has_timestamps=has_timestamps)
        knows_end = all(speech.certain for speech in sample.speech[-1:])
        said.append((tokens.eot, _UNKNOWN, knows_end))
        prefix = [tokens.sot]
        if is_full:
            prefix += [tokens.languages["en"], tokens.transcribe]
        if not has_timestamps:
            prefix.append(tokens.no_timestamps)
        # Only one thing is asked of a forced token: whether there is speech, of the first.
        forced = [IGNORED] * (len(prompt) + len(prefix) - 1)
        if forced and len(prefix) > 1:
            forced[len(prompt)] = tokens.languages["en"] if sample.speech else tokens.no_speech
        inputs = [*prompt, *prefix, *(token for token, _, _ in said[:-1])]
        labels = [*forced, *(token for token, _, _ in said)]
        spans = [*(_UNKNOWN for _ in forced), *(span for _, span, _ in said)]
        certain = [*(True for _ in forced), *(known for _, _, known in said)]
        return Target(
            *(tuple(inputs[:_MOST_TOKENS]), tuple(labels[:_MOST_TOKENS])),
            *(tuple(spans[:_MOST_TOKENS]), tuple(certain[:_MOST_TOKENS])),
            *_characters(sample),
        )

    def _said(self, speech: Speech, *, has_timestamps: bool) -> list[tuple[int, Span, bool]]:
        said: list[tuple[int, Span, bool]] = []
        if has_timestamps:
            said.append((self._timestamp(speech.start), _UNKNOWN, True))
        for word in speech.words:
            span = _UNKNOWN if word.span is None else _positions(word.span)
            said += ((token, span, speech.certain) for token in self._encode(word.text))
        if has_timestamps:
            said.append((self._timestamp(speech.end), _UNKNOWN, speech.certain))
        return said

    def _timestamp(self, sample: int) -> int:
        index = round(sample / SAMPLES_PER_POSITION)
        return self._tokens.timestamp_begin + min(NUM_TIMESTAMPS - 1, max(0, index))

    def _encode(self, word: str) -> list[int]:
        """A word behind a space; the pieces of a word do not depend on its neighbours."""
        if word not in self._pieces:
            self._pieces[word] = self._tokens.encode(f" {word}")
        return self._pieces[word]


def _characters(sample: Sample) -> tuple[tuple[int, ...], tuple[WordTarget, ...]]:
    """All that is said for CTC, and the words whose place is known."""
    everything: list[int] = []
    words = []
    for speech in sample.speech:
        for word in speech.words:
            codes = tuple(_CODES[c] for c in word.text.lower() if c in _CODES)
            if not codes:
                continue
            everything += [_CODES[" "], *codes] if everything else codes
            if word.span is not None:
                words.append(WordTarget(_positions(word.span), codes))
    return tuple(everything), tuple(words)


def _positions(span: tuple[int, int]) -> Span:
    begin, end = span
    return begin // SAMPLES_PER_POSITION, max(0, -(-end // SAMPLES_PER_POSITION))


def uncertain_tokens(tokens: Tokenizer) -> list[int]:
    """What may stand in place of a token where neither case nor marks are known.

    Punctuation, and whatever begins a word with a capital letter.
    """
    unsure = re.compile(rb"\s*[,.?!;:-]+|\s[A-Z].*", re.DOTALL)
    return [t for t in range(tokens.eot) if unsure.fullmatch(tokens.token_bytes(t))]
