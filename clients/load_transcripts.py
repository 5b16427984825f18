"""Which words of a load test were said, which were heard of them, and which were made up.

Pure. What is heard meets what is said by time: finals and clips that overlap, directly or through
each other, make one passage, so that it does not matter where the server divides speech.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from clients.load_meter import HeardText
from clients.load_plan import Span
from clients.word_errors import words_of


@dataclass(frozen=True, slots=True)
class Passage:
    """Clips that were said whole, and the text heard of them."""

    clips: tuple[int, ...]
    heard: str


def passages(spans: Sequence[Span], heard: Sequence[HeardText]) -> list[Passage]:
    """The passages of a session, in order, but for those with a clip that was not said whole.

    `spans` and `heard` are in order of time and do not overlap among themselves, but that a
    final may reach back into the one before.
    """
    found: list[Passage] = []
    finals = [final for final in heard if overlaps(final, spans)]
    taken = 0
    at = 0
    while at < len(spans):
        clips, texts = [spans[at]], list[str]()
        reaches_s = spans[at].end_s
        at += 1
        grows = True
        while grows:
            grows = False
            while taken < len(finals) and finals[taken].start_s < reaches_s:
                texts.append(finals[taken].text)
                reaches_s = max(reaches_s, finals[taken].end_s)
                taken, grows = taken + 1, True
            while at < len(spans) and spans[at].start_s < reaches_s:
                clips.append(spans[at])
                reaches_s = max(reaches_s, spans[at].end_s)
                at, grows = at + 1, True
        if all(span.whole for span in clips):
            found.append(Passage(tuple(span.clip for span in clips), " ".join(texts)))
    return found


def invented_words(spans: Sequence[Span], heard: Sequence[HeardText]) -> int:
    """Words of finals that lie wholly where nothing was said."""
    return sum(len(words_of(final.text)) for final in heard if not overlaps(final, spans))


def silent_s(spans: Sequence[Span], audio_s: float) -> float:
    """How much of the first `audio_s` seconds of a session nothing was said in."""
    said_s = sum(max(0.0, min(span.end_s, audio_s) - span.start_s) for span in spans)
    return audio_s - said_s


def overlaps(final: HeardText, spans: Sequence[Span]) -> bool:
    """Whether a clip was being said anywhere within the final."""
    return any(span.start_s < final.end_s and final.start_s < span.end_s for span in spans)
