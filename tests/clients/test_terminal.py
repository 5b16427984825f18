import io
import json

import pytest
from rich.console import Console

from clients.terminal import JsonLines, LiveTranscript, PlainLines, choose_display, times
from stream_server.protocol import Final, Partial, Ready, ServerMessage, WarningMessage

DIM = "\x1b[2m"


def partial(text: str, stable_text: str = "") -> Partial:
    return Partial(
        seq=2,
        segment=0,
        revision=0,
        start=1.0,
        end=2.5,
        text=text,
        stable_text=stable_text,
        stable_end=1.5,
        language="en",
    )


def final(text: str) -> Final:
    return Final(
        seq=3,
        segment=0,
        start=1.0,
        end=62.0,
        text=text,
        language="en",
        language_probability=1.0,
        confidence=0.9,
        no_speech_prob=0.0,
    )


WARNING = WarningMessage(seq=4, code="lagging", message="slower partials", interim_interval_ms=800)
READY = Ready(seq=1, session="s", token="t", model="m", resume_window_s=0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def live(*messages: ServerMessage) -> str:
    """What a colour terminal of 80 columns was sent."""
    out = Terminal()
    with LiveTranscript(Console(file=out, width=80, color_system="standard")) as display:
        for message in messages:
            display.show(message)
    return out.getvalue()


def test_times_are_minutes_seconds_and_tenths() -> None:
    assert times(0.04, 59.96) == "[ 0:00.0 -  1:00.0]"
    assert times(61.5, 3599.9) == "[ 1:01.5 - 59:59.9]"


def test_a_pipe_gets_one_line_per_final_and_none_for_an_empty_one() -> None:
    out = io.StringIO()
    with PlainLines(out) as display:
        for message in (READY, partial("hel"), final(" hello"), final(" "), WARNING):
            display.show(message)
    assert out.getvalue() == "[ 0:01.0 -  1:02.0] hello\n# slower partials\n"


def test_a_pipe_gets_partials_where_they_were_asked_for() -> None:
    out = io.StringIO()
    with PlainLines(out, partials=True) as display:
        display.show(partial("hel"))
        display.show(final("hello"))
    assert out.getvalue() == "[ 0:01.0 -  0:02.5] ~ hel\n[ 0:01.0 -  1:02.0] hello\n"


def test_json_lines_are_the_messages_of_the_protocol() -> None:
    out = io.StringIO()
    with JsonLines(out) as display:
        display.show(READY)
        display.show(partial("größer"))
    ready, update = [json.loads(line) for line in out.getvalue().splitlines()]
    assert ready["type"] == "ready"
    assert update == {
        "type": "partial",
        "seq": 2,
        "segment": 0,
        "revision": 0,
        "start": 1.0,
        "end": 2.5,
        "text": "größer",
        "stable_text": "",
        "stable_end": 1.5,
        "language": "en",
    }


def test_in_a_terminal_the_tail_of_a_partial_is_dim_and_its_stable_part_is_not() -> None:
    shown = live(partial("good morning everybody", "good morning"))
    assert f" good morning{DIM} everybody" in shown


def test_in_a_terminal_the_partial_is_gone_once_its_final_stands() -> None:
    shown = live(partial("good mourning"), final("good morning"), WARNING)
    after_final = shown[shown.index("good morning") :]
    assert "good mourning" in shown
    assert "good mourning" not in after_final
    assert "slower partials" in after_final


def test_text_that_looks_like_markup_is_shown_as_it_is() -> None:
    assert "say [bold]this[/bold]" in live(final("say [bold]this[/bold]"))


@pytest.mark.parametrize(
    ("out", "as_json", "kind"),
    [
        (Terminal(), False, LiveTranscript),
        (io.StringIO(), False, PlainLines),
        (Terminal(), True, JsonLines),
        (io.StringIO(), True, JsonLines),
    ],
)
def test_the_output_decides_the_display(out: io.StringIO, as_json: bool, kind: type) -> None:
    assert type(choose_display(out, as_json=as_json, partials=False)) is kind
