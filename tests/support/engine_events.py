"""Engine events with everything but the interesting fields filled in."""

from engine.audio.units import Samples
from engine.events import HypothesisUpdated, SegmentClosed, UtteranceId, Word


def updated(
    utterance: int, text: str, stable_text: str = "", *, segment: int = 0, end: int = 16_000
) -> HypothesisUpdated:
    return HypothesisUpdated(
        utterance_id=UtteranceId(utterance),
        segment=segment,
        start=Samples(0),
        end=Samples(end),
        text=text,
        stable_text=stable_text,
        stable_end=Samples(end // 2),
        language="en",
        interval=Samples(6_400),
    )


def closed(
    utterance: int,
    text: str,
    *,
    segment: int = 0,
    start: int = 0,
    end: int = 16_000,
    words: tuple[Word, ...] = (),
) -> SegmentClosed:
    return SegmentClosed(
        utterance_id=UtteranceId(utterance),
        segment=segment,
        start=Samples(start),
        end=Samples(end),
        text=text,
        language="en",
        language_probability=0.99,
        confidence=0.9,
        no_speech_prob=0.01,
        avg_logprob=-0.2,
        compression_ratio=1.2,
        temperature=0.0,
        tokens=(),
        words=words,
        spans=(),
    )
