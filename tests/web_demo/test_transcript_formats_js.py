"""web_demo/transcript_formats.js against stream_server/transcript_formats.py."""

import json
from typing import Any

import pytest

from engine.audio.units import Samples, seconds_from_samples
from engine.events import SegmentClosed, UtteranceId, Word
from stream_server.transcript_formats import FORMATS, render
from tests.support.node import run_module

HOURS = 3600 * 16_000


def segment(start: int, end: int, text: str, *words: Word, **changes: Any) -> SegmentClosed:
    """From and to a sample; without timestamp spans, which the wire does not have either."""
    fields: dict[str, Any] = {
        "language": "en",
        "language_probability": 1.0,
        "confidence": 0.9,
        "no_speech_prob": 0.012345,
        "avg_logprob": -0.1,
        "compression_ratio": 1.2,
        "temperature": 0.0,
    }
    return SegmentClosed(
        utterance_id=UtteranceId(1),
        segment=0,
        start=Samples(start),
        end=Samples(end),
        text=text,
        tokens=(),
        words=words,
        spans=(),
        **{**fields, **changes},
    )


WORDS = (
    Word("Grüße", Samples(1), Samples(7_001), 0.876543),
    Word("an", Samples(8_000), Samples(9_999), 1.0),
    Word("alle!", Samples(10_000), Samples(15_999), 0.00004),
)
TRANSCRIPTS = {
    "nothing": [],
    "silence": [segment(0, 16_000, "")],
    "one": [segment(4_000, 24_000, " Hello. ")],
    "several": [
        segment(1, 16_001, " Grüße an alle!", *WORDS, language="de", no_speech_prob=1e-9),
        segment(16_001, 32_000, ""),
        segment(59 * 16_000 + 15_993, 60 * 16_000 + 8, "日本 😀 & <i>"),
        segment(HOURS - 1, HOURS, "One\ttwo", no_speech_prob=1.0),
        segment(99 * HOURS + 7, 101 * HOURS + 15_999, "Late."),
    ],
    # Every place of a sample between two milliseconds, and halfway, for odd and even ones.
    "roundings": [segment(n, 3_661 * 16_000 + n, f"word {n}") for n in range(64)],
}
DURATION = Samples(102 * HOURS + 3)


def final_of(closed: SegmentClosed) -> dict[str, Any]:
    """What the wire tells of a segment."""
    return {
        "type": "final",
        "seq": 1,
        "segment": 0,
        "start": seconds_from_samples(closed.start),
        "end": seconds_from_samples(closed.end),
        "text": closed.text,
        "language": closed.language,
        "language_probability": closed.language_probability,
        "confidence": closed.confidence,
        "no_speech_prob": closed.no_speech_prob,
        "words": [
            {
                "word": word.text,
                "start": seconds_from_samples(word.start),
                "end": seconds_from_samples(word.end),
                "confidence": word.confidence,
            }
            for word in closed.words
        ],
    }


@pytest.fixture(scope="module")
def rendered() -> dict[str, dict[str, str]]:
    """What the page makes of each transcript in each format."""
    answered: dict[str, dict[str, str]] = run_module(
        'import { FORMATS, render } from "./web_demo/transcript_formats.js";'
        "const inEach = (finals) => Object.fromEntries("
        "  FORMATS.map((form) => [form, render(finals, given.durationS, form)]));"
        "answer(Object.fromEntries("
        "  Object.entries(given.transcripts).map(([name, finals]) => [name, inEach(finals)])));",
        {
            "durationS": seconds_from_samples(DURATION),
            "transcripts": {
                name: [final_of(closed) for closed in segments]
                for name, segments in TRANSCRIPTS.items()
            },
        },
    )
    return answered


def test_both_know_the_same_formats(rendered: dict[str, dict[str, str]]) -> None:
    assert set(rendered["one"]) == set(FORMATS)


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_both_write_the_same_text_and_captions(
    name: str, form: str, rendered: dict[str, dict[str, str]]
) -> None:
    assert rendered[name][form] == render(TRANSCRIPTS[name], DURATION, form)


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_both_write_the_same_json_where_both_know_a_figure(
    name: str, rendered: dict[str, dict[str, str]]
) -> None:
    page = json.loads(rendered[name]["json"])
    server = json.loads(render(TRANSCRIPTS[name], DURATION, "json"))
    for line in server["segments"]:
        for unknown_to_the_wire in ("tokens", "avg_logprob", "compression_ratio", "temperature"):
            del line[unknown_to_the_wire]
    for line in page["segments"]:
        assert line.pop("confidence") == 0.9  # of a segment, which the server does not write
    assert page == server
