"""A transcript of three utterances in every format, against what the formats themselves say."""

import json
from dataclasses import replace
from typing import Any

import pytest

from engine.audio.units import Samples, samples_from_seconds
from engine.events import SegmentClosed, TimestampSpan, UtteranceId, Word
from stream_server.transcript_formats import FORMATS, render

DURATION = Samples(samples_from_seconds(3723.5))


def span(start: float, end: float, text: str, *tokens: int) -> TimestampSpan:
    return TimestampSpan(samples_from_seconds(start), samples_from_seconds(end), text, tokens)


def segment(start: float, end: float, text: str, *spans: TimestampSpan) -> SegmentClosed:
    return SegmentClosed(
        utterance_id=UtteranceId(1),
        segment=0,
        start=samples_from_seconds(start),
        end=samples_from_seconds(end),
        text=text,
        language="en",
        language_probability=1.0,
        confidence=0.9,
        no_speech_prob=0.012345,
        avg_logprob=-0.123456,
        compression_ratio=1.23456,
        temperature=0.4,
        tokens=(7, 8),
        words=(),
        spans=spans,
    )


SEGMENTS = [
    segment(0.25, 1.5, "Grüße!"),
    segment(2, 3, ""),  # nothing was said
    segment(
        3661.0,
        3723.4567,
        " One. Two.",
        span(3661.0, 3662.0, " One.", 1, 2),
        span(3662.0, 3662.0, ""),
        span(3662.5, 3723.4567, " Two.", 3),
    ),
]
FIGURES = {
    "avg_logprob": -0.1235,
    "no_speech_prob": 0.0123,
    "compression_ratio": 1.2346,
    "temperature": 0.4,
    "language": "en",
}


def document(*segments: SegmentClosed) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(render(segments, DURATION, "json"))
    return written


def test_text_is_a_line_for_each_span_that_says_something() -> None:
    assert render(SEGMENTS, DURATION, "text") == "Grüße!\nOne.\nTwo.\n"


def test_srt_numbers_its_cues_and_writes_a_comma() -> None:
    assert render(SEGMENTS, DURATION, "srt") == (
        "1\n00:00:00,250 --> 00:00:01,500\nGrüße!\n"
        "\n2\n01:01:01,000 --> 01:01:02,000\nOne.\n"
        "\n3\n01:01:02,500 --> 01:02:03,457\nTwo.\n"
    )


def test_webvtt_begins_with_its_name_and_writes_a_point() -> None:
    assert render(SEGMENTS, DURATION, "vtt") == (
        "WEBVTT\n"
        "\n00:00:00.250 --> 00:00:01.500\nGrüße!\n"
        "\n01:01:01.000 --> 01:01:02.000\nOne.\n"
        "\n01:01:02.500 --> 01:02:03.457\nTwo.\n"
    )


def test_only_webvtt_takes_markup_for_markup() -> None:
    said = [segment(0, 1, "AT&T <said> this --> that")]
    assert "\nAT&amp;T &lt;said&gt; this --&gt; that\n" in render(said, DURATION, "vtt")
    assert "\nAT&T <said> this --> that\n" in render(said, DURATION, "srt")


@pytest.mark.parametrize(
    ("seconds", "clock"), [(59.9996, "00:01:00,000"), (3599.9999, "01:00:00,000")]
)
def test_milliseconds_that_round_up_are_carried(seconds: float, clock: str) -> None:
    assert f"00:00:00,000 --> {clock}" in render([segment(0, seconds, "x")], DURATION, "srt")


def test_json_holds_the_whole_text_and_each_line_with_its_figures() -> None:
    written = document(*SEGMENTS)
    assert written["text"] == "Grüße! One. Two."
    assert written["language"] == "en"
    assert written["duration"] == 3723.5
    assert written["segments"] == [
        {"id": 0, "start": 0.25, "end": 1.5, "text": "Grüße!", "tokens": [7, 8], **FIGURES},
        {"id": 1, "start": 3661, "end": 3662, "text": "One.", "tokens": [1, 2], **FIGURES},
        {
            "id": 2,
            "start": 3662.5,
            "end": pytest.approx(3723.4567, abs=1e-4),
            "text": "Two.",
            "tokens": [3],
            **FIGURES,
        },
    ]


def test_words_stand_in_the_line_that_says_them_even_where_they_are_heard_outside_of_it() -> None:
    """Times of spans and of words come from different parts of the model."""
    heard = (("One.", 3660.5), ("Two", 3661.75), ("three.", 3723.25))
    words = tuple(
        Word(text, samples_from_seconds(start), samples_from_seconds(start + 0.25), 0.87654)
        for text, start in heard
    )
    spans = (span(3661, 3662, " One."), span(3662, 3662, ""), span(3662.5, 3723, " Two three."))
    spoken = replace(segment(3660, 3724, " One. Two three.", *spans), words=words)
    lines = document(spoken)["segments"]
    assert [[word["word"] for word in line["words"]] for line in lines] == [
        ["One."],
        ["Two", "three."],
    ]
    assert lines[0]["words"][0] == {
        "word": "One.",
        "start": 3660.5,
        "end": 3660.75,
        "confidence": 0.8765,
    }


def test_letters_of_every_script_are_written_as_they_are() -> None:
    assert "Grüße!" in render(SEGMENTS, DURATION, "json")


@pytest.mark.parametrize(
    ("form", "nothing"),
    [
        ("text", ""),
        ("srt", ""),
        ("vtt", "WEBVTT\n"),
        ("json", '{"text": "", "language": null, "duration": 3723.5, "segments": []}\n'),
    ],
)
def test_a_recording_without_speech_is_still_a_valid_file(form: str, nothing: str) -> None:
    silent = [segment(0, 1, "")]
    assert render(silent, DURATION, form) == nothing


def test_every_format_ends_in_a_newline() -> None:
    for form in FORMATS:
        assert render(SEGMENTS, DURATION, form).endswith("\n")
