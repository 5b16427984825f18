"""The microphone page in a real browser: what people see, against what was said."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, WebSocketRoute, expect

from clients.latency import LatencyMeter
from engine.audio.file import read_audio
from engine.audio.units import SAMPLE_RATE
from stream_server import protocol
from stream_server.protocol import CODECS, JSON_SUBPROTOCOL
from tests.support.browser import OpenBrowser, browsers, watched_page, write_speech, write_wav
from tests.support.clips import DEMO, TWO_SENTENCES
from tests.support.live_server import live_server
from tests.support.server_process import ServerProcess, restartable_server
from tests.support.words import word_error_rate, words_of

TIMEOUT_MS: Final = 30_000  # of waiting for what has to happen; nothing is timed
SHORT_RATE: Final = 0.1  # of words heard wrong: one in fifteen, after the browser's own processing
LONG_RATE: Final = 0.08  # as in test_transcripts.py
JSON_CODEC: Final = CODECS[JSON_SUBPROTOCOL]

# Remembers what went over the websocket and what the page showed of it. Whatever happens in one
# task reads the same time, so that the page and the test read the same.
RECORD: Final = """
const readClock = performance.now.bind(performance);
const nextTask = new MessageChannel();
let reading = null;
nextTask.port1.onmessage = () => { reading = null; };
performance.now = () => {
  if (reading === null) {
    reading = readClock();
    nextTask.port2.postMessage(null);
  }
  return reading;
};

window.wire = [];
const record = (entry) => window.wire.push({ now: performance.now(), ...entry });
window.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    this.addEventListener("message", ({ data }) => record({ received: data }));
  }
  send(data) {
    record(typeof data === "string" ? { sent: data } : { numBytes: data.byteLength });
    super.send(data);
  }
};

window.shown = [];
addEventListener("DOMContentLoaded", () => {
  const text = (selector) => document.querySelector(selector).textContent;
  new MutationObserver(() => {
    window.shown.push({
      numFinals: document.querySelectorAll("#finals p").length,
      stable: text("#partial .stable"),
      tail: text("#partial .tail"),
      age: text("#partial-age"),
      speech: document.querySelector("#speech").dataset.active,
    });
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
});
"""

DRAWN: Final = "(canvas) => canvas.toDataURL()"

# What a browser itself says about the refusals and the lost connections that a test provokes.
REFUSED: Final = ("Failed to load resource", "WebSocket connection to")


# --- what there is, once for all tests --------------------------------------------------------


@pytest.fixture(scope="module")
def open_browser() -> Iterator[OpenBrowser]:
    with browsers() as opener:
        yield opener


@pytest.fixture(scope="module")
def server(open_browser: OpenBrowser) -> Iterator[ServerProcess]:
    """With the embedded model; not started where there is no browser."""
    with restartable_server() as running:
        yield running


@pytest.fixture(scope="module")
def browser(open_browser: OpenBrowser) -> Browser:
    """One whose microphone beeps."""
    return open_browser()


@pytest.fixture(scope="module")
def speaking_browser(
    open_browser: OpenBrowser, tmp_path_factory: pytest.TempPathFactory
) -> Browser:
    """One whose microphone says the two sentences, from the moment it is opened."""
    wav = tmp_path_factory.mktemp("speech") / "two_sentences.wav"
    write_speech(TWO_SENTENCES, wav, silence_s=2)
    return open_browser(wav)


def said_in(clip: Path) -> list[str]:
    return words_of(clip.with_suffix(".txt").read_text())


# --- the page as people use it ----------------------------------------------------------------


@dataclass(frozen=True)
class Captions:
    """The page and what can be done with it."""

    page: Page

    def __getitem__(self, element: str) -> Locator:
        """The element with that id."""
        return self.page.locator(f"#{element}")

    @property
    def finals(self) -> Locator:
        return self.page.locator("#finals p")

    @property
    def texts(self) -> list[str]:
        return self.finals.locator(".text").all_text_contents()

    @property
    def words(self) -> list[str]:
        return words_of(" ".join(self.texts))

    def await_phase(self, phase: str) -> None:
        expect(self["state"]).to_have_attribute("data-phase", phase, timeout=TIMEOUT_MS)

    def await_finals(self, count: int) -> None:
        expect(self.finals).to_have_count(count, timeout=TIMEOUT_MS)

    def await_partial(self, words: str) -> None:
        expect(self["partial"]).to_contain_text(words, timeout=TIMEOUT_MS, ignore_case=True)

    def await_notice(self, words: str) -> None:
        expect(self["notice"]).to_contain_text(words, timeout=TIMEOUT_MS, ignore_case=True)

    def await_audio_s(self, seconds: float) -> None:
        """Until a final that ends there or later."""
        self.page.wait_for_function(
            "(seconds) => Number(document.querySelector('#finals p:last-child')?.dataset.end ?? 0)"
            " >= seconds",
            arg=seconds,
            timeout=3 * TIMEOUT_MS,
        )

    def open_settings(self) -> None:
        if not self["setting-key"].is_visible():
            self["settings"].locator("summary").click()

    def play_silently(self) -> None:
        """Recordings from now on go as fast as the server takes them."""
        self.open_settings()
        self["setting-aloud"].uncheck()

    def drop(self, name: str, content: bytes) -> None:
        """Let a file fall on the page."""
        self.page.evaluate(
            """([name, content]) => {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                const dataTransfer = new DataTransfer();
                dataTransfer.items.add(new File([bytes], name));
                for (const type of ["dragenter", "dragover", "drop"]) {
                    const event = { dataTransfer, bubbles: true, cancelable: true };
                    document.body.dispatchEvent(new DragEvent(type, event));
                }
            }""",
            [name, base64.b64encode(content).decode()],
        )

    @property
    def shown(self) -> list[dict[str, Any]]:
        """Every state that RECORD saw, oldest first."""
        return cast(list[dict[str, Any]], self.page.evaluate("window.shown"))

    def wire(self) -> tuple[list[protocol.ServerMessage], LatencyMeter]:
        """What RECORD saw on the websocket, and what the clients' own meter makes of it."""
        meter = LatencyMeter()
        messages: list[protocol.ServerMessage] = []
        sample_rate = num_samples = 0
        for entry in self.page.evaluate("window.wire"):
            now = entry["now"] / 1000
            if "numBytes" in entry:
                num_samples += entry["numBytes"] // 2
                meter.sent(num_samples / sample_rate, now)
            elif "received" in entry:
                messages.append(JSON_CODEC.decode_server(entry["received"]))
                meter.received(messages[-1], now)
            else:
                message = JSON_CODEC.decode_client(entry["sent"])
                if isinstance(message, protocol.Start):
                    sample_rate = message.sample_rate
        return messages, meter

    def assert_figures(self) -> None:
        """The latencies on the page are those of the messages."""
        _, meter = self.wire()
        assert meter.latencies_s
        expect(self["latency-last"]).to_have_text(in_ms(meter.latencies_s[-1]))
        expect(self["latency-median"]).to_have_text(in_ms(meter.median_s))


def in_ms(seconds: float | None) -> str:
    assert seconds is not None
    return f"{round(seconds * 1000)} ms"


@pytest.fixture
def visit() -> Iterator[Callable[..., Captions]]:
    """Opens pages. Each is checked and closed at the end of its test."""
    with ExitStack() as pages:

        def opened(browser: Browser, url: str, **options: Any) -> Captions:
            return Captions(pages.enter_context(watched_page(browser, url, **options)))

        yield opened


Visit = Callable[..., Captions]


# --- the microphone ---------------------------------------------------------------------------


def test_spoken_words_appear_while_they_are_spoken_and_stay(
    visit: Visit, speaking_browser: Browser, server: ServerProcess
) -> None:
    captions = visit(speaking_browser, server.page, init_script=RECORD)
    captions["start"].click()
    expect(captions["start"]).to_have_attribute("data-running", "true")
    captions.await_finals(2)
    captions.assert_figures()
    captions["start"].click()
    captions.await_phase("done")
    expect(captions["start"]).to_have_attribute("data-running", "false")

    assert word_error_rate(said_in(TWO_SENTENCES), captions.words) < SHORT_RATE
    partials = [
        (state["numFinals"], words_of(state["stable"] + state["tail"])) for state in captions.shown
    ]
    for sentence in (0, 1):
        spoken = words_of(captions.texts[sentence])
        while_spoken = [words for finals, words in partials if finals == sentence]
        assert spoken[:3] in [words[:3] for words in while_spoken]
    for before, after in pairwise(captions.shown):
        if before["numFinals"] == after["numFinals"] and after["stable"]:
            assert after["stable"].startswith(before["stable"])
    assert any(state["age"].endswith(" ms") for state in captions.shown)
    assert {state["speech"] for state in captions.shown} == {"true", "false"}

    messages, _ = captions.wire()
    finals = [message for message in messages if isinstance(message, protocol.Final)]
    assert captions.texts == [final.text for final in finals]
    for paragraph, final in zip(captions.finals.all(), finals, strict=True):
        assert paragraph.get_attribute("data-segment") == str(final.segment)
        assert float(paragraph.get_attribute("data-start") or "nan") == final.start
        assert float(paragraph.get_attribute("data-end") or "nan") == final.end
    ready = next(message for message in messages if isinstance(message, protocol.Ready))
    expect(captions["model"]).to_have_text(ready.model)
    expect(captions["language"]).to_have_text("English")


def test_stop_delivers_the_last_words(
    visit: Visit, speaking_browser: Browser, server: ServerProcess
) -> None:
    captions = visit(speaking_browser, server.page, init_script=RECORD)
    captions["start"].click()
    captions.await_partial("the next train")
    captions["start"].click()
    captions.await_phase("done")
    said = said_in(TWO_SENTENCES)
    said = said[: said.index("train") + 1]
    assert word_error_rate(said, captions.words[: len(said)]) < SHORT_RATE
    assert "train" in captions.words
    expect(captions["partial"]).to_be_hidden()
    captions.assert_figures()


def test_a_muted_microphone_sends_silence(
    visit: Visit, speaking_browser: Browser, server: ServerProcess
) -> None:
    captions = visit(speaking_browser, server.page, init_script=RECORD)
    captions["start"].click()
    captions["mute"].click()
    expect(captions["mute"]).to_have_attribute("aria-pressed", "true")
    captions.page.wait_for_function(
        "() => window.wire.filter((entry) => entry.numBytes).length > 50", timeout=TIMEOUT_MS
    )
    captions["start"].click()
    captions.await_phase("done")
    messages, _ = captions.wire()
    done = messages[-1]
    assert isinstance(done, protocol.Done)
    assert (done.segments, done.audio_s > 2) == (0, True)


@pytest.mark.parametrize(
    ("answer", "words"), [("denied", "allow"), ("no microphone", "microphone")]
)
def test_a_page_without_a_microphone_says_so(
    visit: Visit, open_browser: OpenBrowser, server: ServerProcess, answer: Any, words: str
) -> None:
    captions = visit(open_browser(microphone=answer), server.page)
    captions["start"].click()
    captions.await_notice(words)
    captions.await_phase("failed")
    expect(captions["start"]).to_have_attribute("data-running", "false")


# --- recordings -------------------------------------------------------------------------------


def test_the_sample_is_written_down_and_can_be_kept(
    visit: Visit, browser: Browser, server: ServerProcess
) -> None:
    captions = visit(browser, server.page)
    captions.play_silently()
    captions["sample"].click()
    captions.await_phase("done")
    assert word_error_rate(said_in(DEMO), captions.words) < LONG_RATE
    for form, extension in (("text", "txt"), ("srt", "srt"), ("vtt", "vtt"), ("json", "json")):
        with captions.page.expect_download() as downloading:
            captions.page.locator(f"[data-format={form}]").click()
        assert downloading.value.suggested_filename.endswith(f".{extension}")
        kept = Path(downloading.value.path()).read_text()
        if form == "json":
            kept = json.loads(kept)["text"]
        for text in captions.texts:
            assert text in kept
    captions.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    captions["copy"].click()
    captions.await_notice("clipboard")
    copied = captions.page.evaluate("navigator.clipboard.readText()")
    assert words_of(copied) == captions.words
    captions["clear"].click()
    captions.await_finals(0)


def test_the_sample_is_heard_in_real_time_and_can_be_stopped(
    visit: Visit, browser: Browser, server: ServerProcess
) -> None:
    captions = visit(browser, server.page, init_script=RECORD)
    empty = captions["timeline"].evaluate(DRAWN)
    captions["sample"].click()
    captions.await_finals(1)
    assert captions["timeline"].evaluate(DRAWN) != empty
    captions["start"].click()
    captions.await_phase("done")
    said = said_in(DEMO)
    assert captions.words[:3] == said[:3]
    assert len(captions.words) < len(said) / 2
    assert any(
        words_of(state["stable"] + state["tail"])[:2] == said[:2] for state in captions.shown
    )


def test_a_dropped_recording_is_written_down(
    visit: Visit, browser: Browser, server: ServerProcess, tmp_path: Path
) -> None:
    wav = tmp_path / "speech.wav"
    write_speech(TWO_SENTENCES, wav, silence_s=0)
    captions = visit(browser, server.page)
    captions.play_silently()
    captions.drop("speech.wav", wav.read_bytes())
    captions.await_phase("done")
    assert word_error_rate(said_in(TWO_SENTENCES), captions.words) < SHORT_RATE


def test_a_chosen_file_is_written_down_and_one_that_is_no_sound_is_named(
    visit: Visit, browser: Browser, server: ServerProcess, tmp_path: Path
) -> None:
    captions = visit(browser, server.page)
    captions.play_silently()
    captions["file"].set_input_files(TWO_SENTENCES)
    captions.await_phase("done")
    assert word_error_rate(said_in(TWO_SENTENCES), captions.words) < SHORT_RATE
    letter = tmp_path / "letter.wav"
    letter.write_text("Dear Sir or Madam")
    captions["file"].set_input_files(letter)
    captions.await_notice("letter.wav")
    captions.await_phase("failed")


# --- what a server may do ---------------------------------------------------------------------


def test_a_wrong_key_is_told_and_the_right_one_works(visit: Visit, browser: Browser) -> None:
    with live_server(api_key=["right"]) as keyed:
        captions = visit(browser, keyed.http("/"), expected=REFUSED)
        captions.await_notice("key")
        captions.play_silently()
        for key, start in (("", captions["sample"]), ("wrong", captions["sample"])):
            captions["setting-key"].fill(key)
            start.click()
            captions.await_phase("failed")
            captions.await_notice("key")
        captions["setting-key"].fill("right")
        captions["sample"].click()
        captions.await_phase("done")
        assert captions.words[0] == "w0"
        expect(captions["notice"]).to_be_hidden()
        captions.page.close()


def test_a_full_server_is_tried_again_until_it_has_room(visit: Visit, browser: Browser) -> None:
    with live_server(max_sessions=1) as small:
        first = visit(browser, small.http("/"))
        first["start"].click()
        first.await_phase("open")
        second = visit(browser, small.http("/"), expected=REFUSED)
        second.play_silently()
        second["sample"].click()
        second.await_phase("reconnecting")
        second.await_notice("full")
        first["start"].click()
        second.await_phase("done")
        assert second.words[0] == "w0"
        first.page.close()
        second.page.close()


EVIL: Final = "<img src=x onerror=\"document.title='owned'\"> & more"


def test_what_a_server_says_is_never_html(
    visit: Visit, browser: Browser, server: ServerProcess
) -> None:
    def answer(socket: WebSocketRoute) -> None:
        def send(*messages: protocol.ServerMessage) -> None:
            for message in messages:
                socket.send(cast(str, JSON_CODEC.encode(message)))

        def receive(frame: str | bytes) -> None:
            match JSON_CODEC.decode_client(frame):
                case protocol.Start():
                    send(
                        protocol.Ready(
                            seq=1, session="s", token="t", model=EVIL, resume_window_s=0
                        ),
                        protocol.SpeechStarted(seq=2, at=0.1),
                    )
                case protocol.Stop():
                    word = protocol.Word(word=EVIL[:9], start=0.1, end=0.2, confidence=0.1)
                    send(
                        partial(3, EVIL),
                        protocol.WarningMessage(
                            seq=4, code="lagging", message=EVIL, interim_interval_ms=800
                        ),
                        final(5, EVIL, [word]),
                    )

        socket.on_message(receive)

    captions = visit(browser, server.page)
    page = captions.page
    model = {"id": EVIL, "object": "model", "languages": [EVIL, "en"], "tasks": [EVIL]}
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [model]}))
    page.route_web_socket("**/v1/stream", answer)
    page.reload()
    captions.play_silently()
    captions["sample"].click()
    captions.await_finals(1)
    assert captions.texts == [EVIL]
    expect(captions["model"]).to_have_text(EVIL)
    expect(captions["notice"]).to_have_text(EVIL)
    expect(captions["language"]).to_have_text(EVIL)
    assert page.locator("img[src=x]").count() == 0
    assert page.title() != "owned"


# --- the page as a thing to be used -----------------------------------------------------------

FOCUSABLE: Final = "button, select, input, summary, a[href], [tabindex='0']"


def test_every_control_is_reached_and_used_by_keyboard(
    visit: Visit, browser: Browser, server: ServerProcess
) -> None:
    captions = visit(browser, server.page)
    page = captions.page
    page.keyboard.press("Tab")
    captions["settings"].locator("summary").focus()
    page.keyboard.press("Enter")
    captions["setting-aloud"].focus()
    page.keyboard.press("Space")
    captions["sample"].focus()
    page.keyboard.press("Enter")
    captions.await_phase("done")

    controls = {
        named(control)
        for control in page.locator(FOCUSABLE).all()
        if control.is_visible()
        and control.is_enabled()
        and control.get_attribute("tabindex") != "-1"
    }
    assert {"start", "sample", "transcript", "copy", "clear", "setting-key"} <= controls
    page.locator("body").evaluate("() => document.activeElement.blur()")
    reached: list[str] = []
    for _ in range(2 * len(controls)):
        page.keyboard.press("Tab")
        reached.append(named(page.locator(":focus")) if page.locator(":focus").count() else "")
    assert controls <= set(reached)

    captions["start"].focus()
    page.keyboard.press("Space")
    captions.await_phase("open")
    captions["mute"].focus()
    page.keyboard.press("Enter")
    expect(captions["mute"]).to_have_attribute("aria-pressed", "true")
    captions["start"].focus()
    page.keyboard.press("Enter")
    captions.await_phase("done")


def named(control: Locator) -> str:
    """Something that tells one control from another."""
    return str(
        control.evaluate(
            "(it) => it.id || it.dataset.format || it.getAttribute('href') || it.tagName"
        )
    )


@pytest.mark.parametrize("width_px", [360, 1280])
def test_nothing_is_wider_than_the_window(
    visit: Visit, browser: Browser, server: ServerProcess, width_px: int
) -> None:
    captions = visit(browser, server.page)
    captions.page.set_viewport_size({"width": width_px, "height": 740})
    captions.play_silently()
    captions["sample"].click()
    captions.await_phase("done")
    assert captions.page.evaluate("document.documentElement.scrollWidth") <= width_px


def test_a_script_that_gets_into_the_page_does_not_run(
    visit: Visit, browser: Browser, server: ServerProcess
) -> None:
    captions = visit(browser, server.page, expected=("inline",))
    captions.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'owned'";
            document.body.append(script);
        }"""
    )
    assert captions.page.title() != "owned"


# --- the long run -----------------------------------------------------------------------------

LONG_S: Final = 15 * 60
AHEAD_S: Final = 2 * 60  # what backlog.js holds: so far a page may be ahead of its finals
BOUND_BYTES: Final = 500_000  # fifteen minutes of audio are 29 MB as sent, 58 MB as decoded
COMPILED_BYTES: Final = 1_000_000  # of scripts that have run often; a second hour adds none


@pytest.mark.timeout(240)
def test_fifteen_minutes_leave_nothing_behind_but_the_transcript(
    visit: Visit, browser: Browser, server: ServerProcess, tmp_path: Path
) -> None:
    clip = read_audio(DEMO)
    num_clips = -(-(LONG_S + AHEAD_S) * SAMPLE_RATE // len(clip))
    wav = tmp_path / "long.wav"
    write_wav(wav, np.tile(clip, num_clips), SAMPLE_RATE)
    captions = visit(browser, server.page)
    session = captions.page.context.new_cdp_session(captions.page)

    def held_bytes() -> int:
        """By scripts, with the audio they hold, without the transcript as it is kept and shown."""
        session.send("HeapProfiler.collectGarbage")
        usage = session.send("Runtime.getHeapUsage")
        shown = captions.page.evaluate("() => document.querySelector('#finals').innerHTML.length")
        return int(usage["usedSize"] + usage["backingStorageSize"]) - 2 * int(shown)

    captions.play_silently()
    captions["sample"].click()  # everything has run once
    captions.await_phase("done")
    before = held_bytes()
    captions["file"].set_input_files(wav)
    captions.await_audio_s(60)
    early = held_bytes()
    captions.await_audio_s(LONG_S)
    late = held_bytes()
    captions["start"].click()
    captions.await_phase("done")
    after = held_bytes()
    said = (said_in(DEMO) * num_clips)[: len(captions.words)]
    assert word_error_rate(said, captions.words) < LONG_RATE
    assert late - early < BOUND_BYTES
    assert after - before < BOUND_BYTES + COMPILED_BYTES


# --- last, since it replaces the server -------------------------------------------------------


def test_a_server_that_is_killed_and_comes_back_costs_no_word(
    visit: Visit, speaking_browser: Browser, server: ServerProcess
) -> None:
    captions = visit(speaking_browser, server.page, expected=REFUSED)
    captions["start"].click()
    captions.await_partial("the next train")
    server.kill()
    captions.await_phase("reconnecting")
    captions.await_notice("lost")
    server.start()
    captions.await_phase("open")
    captions.await_finals(2)
    captions["start"].click()
    captions.await_phase("done")
    assert word_error_rate(said_in(TWO_SENTENCES), captions.words) < SHORT_RATE


def partial(seq: int, text: str) -> protocol.Partial:
    return protocol.Partial(
        seq=seq,
        segment=0,
        revision=0,
        start=0.1,
        end=0.5,
        text=text,
        stable_text=text[:9],
        stable_end=0.2,
        language=text,
    )


def final(seq: int, text: str, words: Sequence[protocol.Word]) -> protocol.Final:
    return protocol.Final(
        seq=seq,
        segment=0,
        start=0.1,
        end=0.5,
        text=text,
        language=text,
        language_probability=0.9,
        confidence=0.9,
        no_speech_prob=0.1,
        words=list(words),
    )
