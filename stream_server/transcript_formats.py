"""A finished transcript as text, JSON, SRT or WebVTT. Decides the writing only."""

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from engine.audio.units import Samples, seconds_from_samples
from engine.events import SegmentClosed, Word

FORMATS = ("text", "json", "srt", "vtt")


def render(segments: Sequence[SegmentClosed], duration: Samples, form: str) -> str:
    """`segments` of a recording of `duration` in one of FORMATS, ending in a newline."""
    lines = [line for segment in segments for line in _lines(segment)]
    if form == "json":
        return json.dumps(_document(segments, lines, duration), ensure_ascii=False) + "\n"
    if form == "text":
        return "".join(f"{line['text']}\n" for line in lines)
    is_srt = form == "srt"
    comma = "," if is_srt else "."
    cues = [
        f"{_clock(line['start'], comma)} --> {_clock(line['end'], comma)}\n"
        f"{line['text'] if is_srt else _escaped(line['text'])}\n"
        for line in lines
    ]
    if is_srt:
        return "\n".join(f"{number}\n{cue}" for number, cue in enumerate(cues, start=1))
    return "\n".join(["WEBVTT\n", *cues])


def _escaped(text: str) -> str:
    """Cue text of WebVTT (W3C WebVTT, 4.2.2): these would begin a tag or reference or end a cue."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _document(
    segments: Sequence[SegmentClosed], lines: Sequence[dict[str, Any]], duration: Samples
) -> dict[str, Any]:
    return {
        "text": " ".join(line["text"] for line in lines),
        "language": next((segment.language for segment in segments if segment.text), None),
        "duration": seconds_from_samples(duration),
        "segments": [{"id": number, **line} for number, line in enumerate(lines)],
    }


def _lines(segment: SegmentClosed) -> list[dict[str, Any]]:
    """What is shown as one line: each timestamp span, or the whole segment without them."""
    shared = {
        "avg_logprob": round(segment.avg_logprob, 4),
        "no_speech_prob": round(segment.no_speech_prob, 4),
        "compression_ratio": round(segment.compression_ratio, 4),
        "temperature": segment.temperature,
        "language": segment.language,
    }
    spans = [(span.start, span.end, span.text, span.tokens) for span in segment.spans] or [
        (segment.start, segment.end, segment.text, segment.tokens)
    ]
    waiting = deque(segment.words)
    lines = []
    for start, end, text, tokens in spans:
        if not text:
            continue
        line = {
            "start": seconds_from_samples(start),
            "end": seconds_from_samples(end),
            "text": text.strip(),
            "tokens": list(tokens),
            **shared,
        }
        if words := _take_words(waiting, text):
            line["words"] = [
                {
                    "word": word.text,
                    "start": seconds_from_samples(word.start),
                    "end": seconds_from_samples(word.end),
                    "confidence": round(word.confidence, 4),
                }
                for word in words
            ]
        lines.append(line)
    return lines


def _take_words(words: deque[Word], text: str) -> list[Word]:
    """The next words, as many as `text` holds.

    Told by their letters: the times of words and of spans come from different parts of the
    model, and a word can be heard outside of the span that it is written in.
    """
    letters = _num_letters(text)
    taken = []
    while words and letters > 0:
        taken.append(words.popleft())
        letters -= _num_letters(taken[-1].text)
    return taken


def _num_letters(text: str) -> int:
    return len("".join(text.split()))


def _clock(seconds: float, comma: str) -> str:
    """`01:02:03,450`; milliseconds are rounded, never carried past the second by hand."""
    total_ms = round(seconds * 1000)
    minutes, ms = divmod(total_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{ms // 1000:02}{comma}{ms % 1000:03}"
