"""Microphone and recordings in a real browser: what comes out is the sound that went in.

An empty page imports the modules; the microphone is Chromium's fake device, which says a WAV. What
the modules make of everything a browser may do is for their own tests.
"""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray
from playwright.sync_api import Page

from engine.audio.units import SAMPLE_RATE
from stream_server.http_routes import PAGE_HEADERS
from tests.support.browser import Answer, OpenBrowser, browsers, watched_page, write_wav
from tests.support.clips import REPOSITORY, TWO_SENTENCES, read_clip

CHUNK_S: Final = 0.04
QUICK_CHUNK: Final = 3_200  # samples
SPEECH: Final = read_clip(TWO_SENTENCES)
SHORT: Final = SPEECH[: 2 * SAMPLE_RATE]  # what nobody minds waiting for in real time

# Gathers chunks for `seconds`, then for `mutedS` more with the microphone muted.
RECORD_MICROPHONE: Final = """
async ({ seconds, mutedS = 0, ...options }) => {
  const { Microphone } = await import("/microphone.js");
  const chunks = [];
  let numSamples = 0;
  let enough = () => {};
  const onChunk = (chunk) => {
    chunks.push(chunk);
    numSamples += chunk.pcm.length;
    enough();
  };
  const hear = (more) => new Promise((resolve) => {
    const end = numSamples + more * microphone.sampleRate;
    enough = () => numSamples >= end && resolve();
  });
  const microphone = await Microphone.open({ ...options, onChunk });
  await hear(seconds);
  if (mutedS > 0) {
    microphone.muted = true;
    await hear(mutedS);
  }
  await microphone.close();
  return {
    sampleRate: microphone.sampleRate,
    label: microphone.label,
    lengths: chunks.map(({ pcm }) => pcm.length),
    peaks: chunks.map(({ peak }) => peak),
    samples: chunks.flatMap(({ pcm }) => [...pcm]),
  };
}"""
BE_REFUSED: Final = """
async () => {
  const { listMicrophones, Microphone } = await import("/microphone.js");
  const list = await listMicrophones();
  try {
    await Microphone.open({ onChunk: () => {} });
  } catch ({ name, kind, message }) {
    return { list, name, kind, message };
  }
}"""
HAND_ON_RECORDING: Final = """
async ({ source, fileName = null, aloud }) => {
  const { Recording } = await import("/recording.js");
  if (fileName !== null) source = new File([await (await fetch(source)).blob()], fileName);
  const chunks = [];
  let onEnd;
  const ended = new Promise((resolve) => { onEnd = resolve; });
  const onChunk = (chunk) => chunks.push(chunk);
  const recording = await Recording.open({ source, aloud, onChunk, onEnd });
  await recording.start();
  const error = await ended;
  return {
    error: error && error.message,
    sampleRate: recording.sampleRate,
    label: recording.label,
    durationS: recording.durationS,
    lengths: chunks.map(({ pcm }) => pcm.length),
    samples: chunks.flatMap(({ pcm }) => [...pcm]),
  };
}"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """The page's modules under the page's own policy, an empty page and some sounds."""

    pages: dict[str, tuple[str, bytes]]  # path: media type, content

    def do_GET(self) -> None:
        if self.path in self.pages:
            kind, content = self.pages[self.path]
            self.send_response(HTTPStatus.OK)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        else:
            super().do_GET()

    def end_headers(self) -> None:
        for name, value in PAGE_HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a page that misses something fails its test."""


@pytest.fixture(scope="module")
def short_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wav = tmp_path_factory.mktemp("capture") / "short.wav"
    write_wav(wav, SHORT, SAMPLE_RATE)
    return wav


@pytest.fixture(scope="module")
def url(short_wav: Path) -> Iterator[str]:
    """Where an empty page and the modules are."""
    Handler.pages = {
        "/": ("text/html", b"<!doctype html><title>capture</title>"),
        "/favicon.ico": ("image/x-icon", b""),
        "/speech.flac": ("audio/flac", TWO_SENTENCES.read_bytes()),
        "/short.wav": ("audio/wav", short_wav.read_bytes()),
        "/notes.txt": ("text/plain", b"No sound at all."),
    }
    handler = partial(Handler, directory=str(REPOSITORY / "web_demo"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def open_browser() -> Iterator[OpenBrowser]:
    with browsers() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(open_browser: OpenBrowser, url: str, short_wav: Path) -> Iterator[Page]:
    with watched_page(open_browser(short_wav), url) as watched:
        yield watched


def likeness(
    samples: list[int], sample_rate: int, original: NDArray[np.float32]
) -> tuple[float, float]:
    """How alike two sounds are where they fit best, at most 1, and how late the first is there."""
    heard = soxr.resample(np.array(samples, np.float32), sample_rate, SAMPLE_RATE)
    size = len(heard) + len(original)
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(original, size))
    products = np.fft.irfft(spectrum, size)
    best = int(np.argmax(products))
    late = best if best < len(heard) else best - size
    norms = np.linalg.norm(heard) * np.linalg.norm(original)
    return float(products[best] / norms), late / SAMPLE_RATE


# --- the microphone -----------------------------------------------------------------------------


def test_the_microphone_hands_on_what_it_hears_without_a_gap(page: Page) -> None:
    heard = page.evaluate(RECORD_MICROPHONE, {"seconds": 2.2, "echoCancellation": False})
    alike, late_s = likeness(heard["samples"], heard["sampleRate"], SHORT)
    assert alike > 0.9  # not 1: automatic gain is on
    assert abs(late_s) < 0.2  # a device begins when it is opened
    assert 8_000 <= heard["sampleRate"] <= 48_000
    assert "Fake" in heard["label"]


def test_chunks_of_the_microphone_are_40_ms_and_know_their_peak(page: Page) -> None:
    heard = page.evaluate(RECORD_MICROPHONE, {"seconds": 1})
    length = round(CHUNK_S * heard["sampleRate"])
    *full, last = heard["lengths"]
    assert set(full) == {length}
    assert 0 < last <= length
    chunks = np.split(np.array(heard["samples"]), np.cumsum(heard["lengths"])[:-1])
    assert [np.abs(chunk).max() / 2**15 for chunk in chunks] == heard["peaks"]
    assert max(heard["peaks"]) > 0.01


def test_closing_delivers_what_the_last_chunk_would_have_begun_with(page: Page) -> None:
    # One ending may fall between two chunks; of five, not all do.
    ends = [page.evaluate(RECORD_MICROPHONE, {"seconds": 0.1})["lengths"] for _ in range(5)]
    assert any(lengths[-1] < lengths[0] for lengths in ends)


def test_a_muted_microphone_goes_on_with_silence(page: Page) -> None:
    heard = page.evaluate(RECORD_MICROPHONE, {"seconds": 0.8, "mutedS": 0.6})
    rate, samples = heard["sampleRate"], np.array(heard["samples"])
    assert samples.any()
    assert len(samples) >= 1.4 * rate
    assert not samples[-rate // 4 :].any()  # the device's own buffers may hold a little sound


def test_a_device_of_the_list_can_be_chosen_and_one_that_is_gone_is_replaced(page: Page) -> None:
    microphones = page.evaluate("async () => (await import('/microphone.js')).listMicrophones()")
    assert len(microphones) > 1
    assert not {"default", "communications"} & {it["id"] for it in microphones}
    second = microphones[1]
    chosen = page.evaluate(RECORD_MICROPHONE, {"seconds": 0.1, "deviceId": second["id"]})
    assert chosen["label"] == second["label"]
    replaced = page.evaluate(RECORD_MICROPHONE, {"seconds": 0.1, "deviceId": "0" * 64})
    assert replaced["label"] not in ("", second["label"])


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [("denied", "denied", "allow it"), ("no microphone", "missing", "connect one")],
)
def test_where_there_is_no_microphone_the_page_says_why(
    open_browser: OpenBrowser, url: str, answer: Answer, kind: str, words: str
) -> None:
    with watched_page(open_browser(microphone=answer), url) as watched:
        refused = watched.evaluate(BE_REFUSED)
    assert refused["name"] == "CaptureError"
    assert refused["kind"] == kind
    assert words in refused["message"]


# --- recordings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("file_name", [None, "dropped.flac"])
def test_a_recording_is_handed_on_quickly_and_exactly(page: Page, file_name: str | None) -> None:
    recording = page.evaluate(
        HAND_ON_RECORDING, {"source": "/speech.flac", "fileName": file_name, "aloud": False}
    )
    assert recording["error"] is None
    assert recording["label"] == (file_name or "speech.flac")
    assert recording["sampleRate"] == SAMPLE_RATE
    assert recording["durationS"] == pytest.approx(len(SPEECH) / SAMPLE_RATE)
    assert set(recording["lengths"][:-1]) == {QUICK_CHUNK}
    differences = np.array(recording["samples"]) - np.rint(SPEECH * 2**15)
    assert np.abs(differences).max() <= 1  # browsers dither or do not


@pytest.mark.parametrize("file_name", [None, "dropped.wav"])
def test_a_recording_aloud_is_handed_on_as_it_is_heard(page: Page, file_name: str | None) -> None:
    recording = page.evaluate(
        HAND_ON_RECORDING, {"source": "/short.wav", "fileName": file_name, "aloud": True}
    )
    rate, samples = recording["sampleRate"], recording["samples"]
    assert recording["error"] is None
    assert recording["durationS"] == pytest.approx(2.0, abs=0.01)
    assert len(samples) / rate == pytest.approx(2.0, abs=0.1)
    assert set(recording["lengths"][:-1]) == {round(CHUNK_S * rate)}
    alike, late_s = likeness(samples, rate, SHORT)
    assert alike > 0.9
    assert abs(late_s) < 0.06  # the session's times are the recording's


@pytest.mark.parametrize("aloud", [True, False])
def test_what_is_no_sound_is_refused_by_name(page: Page, aloud: bool) -> None:
    refused: dict[str, Any] = page.evaluate(
        f"(options) => ({HAND_ON_RECORDING})(options).catch(({{ message }}) => ({{ message }}))",
        {"source": "/notes.txt", "fileName": "notes.txt", "aloud": aloud},
    )
    assert refused["message"].startswith("notes.txt cannot be played by this browser")
