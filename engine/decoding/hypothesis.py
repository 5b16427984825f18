"""A hypothesis: the tokens proposed for a window, with what the decoder said about each."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from engine.audio.units import SAMPLES_PER_POSITION, Samples


@dataclass(frozen=True, slots=True)
class Token:
    """One decoded token.

    `position` is the encoder position its alignment heads attended to most while it was
    predicted: about where it is spoken.
    """

    id: int
    logprob: float
    position: int


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What one decode of a window's first `num_samples` samples says.

    `tokens` follow the forced prefix (`sot`, language, task, timestamps or not) and hold
    neither it nor `eot`; a stable prefix that was forced is included, with the figures it was
    committed with. `complete` is false where decoding was ended by a limit instead of `eot`.
    """

    tokens: tuple[Token, ...]
    num_samples: Samples
    no_speech_prob: float = 0.0
    eot_logprob: float = 0.0
    temperature: float = 0.0
    complete: bool = True

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids alone."""
        return tuple(token.id for token in self.tokens)

    @property
    def avg_logprob(self) -> float:
        """Mean log-probability, `eot` counted, as openai/whisper `decoding.py` has it."""
        total = sum(token.logprob for token in self.tokens) + self.eot_logprob
        return total / (len(self.tokens) + 1)


@dataclass(frozen=True, slots=True)
class HypothesisWord:
    """One written word: its text with leading space and punctuation, and its tokens."""

    text: str
    tokens: tuple[Token, ...]

    @property
    def confidence(self) -> float:
        """Geometric mean of the token probabilities, 0 to 1."""
        if not self.tokens:
            return 0.0
        return exp(min(0.0, sum(token.logprob for token in self.tokens) / len(self.tokens)))


def attach(
    pieces: Sequence[tuple[str, Sequence[int]]], tokens: Sequence[Token]
) -> list[HypothesisWord]:
    """Give each word of a split its tokens back; `pieces` cover `tokens` in order."""
    words, at = [], 0
    for text, ids in pieces:
        words.append(HypothesisWord(text, tuple(tokens[at : at + len(ids)])))
        at += len(ids)
    if at != len(tokens):
        raise ValueError(f"the words hold {at} tokens, the hypothesis {len(tokens)}")
    return words


def end_of(words: Sequence[HypothesisWord], start: Samples, limit: Samples) -> Samples:
    """Where the last of `words` ends on the session's clock; never beyond `limit`.

    The attention peak of its last token and one position more; peaks may step back, ends
    must not, so the furthest counts.
    """
    peaks = [token.position for word in words for token in word.tokens]
    if not peaks:
        return start
    return Samples(min(limit, start + (max(peaks) + 1) * SAMPLES_PER_POSITION))
