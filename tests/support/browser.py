"""A real Chromium for tests of the page, with a microphone that speaks from a file.

Whatever goes wrong in a page fails the test that opened it: an error on its console, an exception
nobody caught, something that its policy forbade, a request to another host.
"""

import os
import re
import shutil
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

import numpy as np
import pytest
import soxr
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from engine.audio.file import read_audio
from engine.audio.units import SAMPLE_RATE

BROWSER_VARIABLE: Final = "STARLING_BROWSER"  # the program, where it is not found by name
REQUIRE_VARIABLE: Final = "STARLING_REQUIRE_BROWSER"  # set: without a browser, tests fail
NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MICROPHONE_RATE: Final = 48_000  # of the fake one; most real ones have it

# No update, no account, no second protocol: a test's browser speaks to the test's server alone.
FLAGS: Final = (
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Answer = Literal["granted", "denied", "no microphone"]
_ANSWERS: Final[dict[Answer, tuple[str, ...]]] = {
    "granted": ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    "denied": ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream=deny"),
    "no microphone": (),
}

# Runs before the page's own scripts.
_REPORT_VIOLATIONS: Final = """
document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  console.error(`the policy forbids ${blockedURI} by ${violatedDirective}`));
"""


def browser_program() -> str:
    """Where Chromium is. Without it the test is skipped, or fails where one is required."""
    named = os.environ.get(BROWSER_VARIABLE)
    for name in (named,) if named else NAMES:
        if program := shutil.which(name):
            return program
    looked_for = named or ", ".join(NAMES)
    reason = f"needs a browser: none of {looked_for} is on PATH; {BROWSER_VARIABLE} can name one"
    if os.environ.get(REQUIRE_VARIABLE):
        pytest.fail(reason)
    pytest.skip(reason)


class OpenBrowser(Protocol):
    def __call__(
        self, fake_speech: Path | None = None, *, microphone: Answer = "granted"
    ) -> Browser:
        """Start a browser; its fake microphone says the WAV `fake_speech` once, or beeps."""


@contextmanager
def browsers() -> Iterator[OpenBrowser]:
    """What opens browsers; all of them are closed at the end. One at a time in a thread."""
    program = browser_program()
    with sync_playwright() as playwright:
        opened: list[Browser] = []

        def open_browser(
            fake_speech: Path | None = None, *, microphone: Answer = "granted"
        ) -> Browser:
            flags = [*FLAGS, *_ANSWERS[microphone]]
            if fake_speech is not None:
                flags.append(f"--use-file-for-fake-audio-capture={fake_speech}%noloop")
            browser = playwright.chromium.launch(executable_path=program, args=flags)
            opened.append(browser)
            return browser

        try:
            yield open_browser
        finally:
            for browser in opened:
                browser.close()


@contextmanager
def watched_page(
    browser: Browser, url: str, *, expected: Sequence[str] = (), init_script: str = ""
) -> Iterator[Page]:
    """The page at `url` in a context of its own; at the end nothing may have gone wrong in it.

    `expected` are patterns of complaints that the test provokes, `init_script` runs before the
    page's own scripts.
    """
    host = urlsplit(url).netloc
    complaints: list[str] = []

    def check_request(requested: str) -> None:
        parts = urlsplit(requested)
        if parts.scheme != "blob" and parts.netloc != host:
            complaints.append(f"the page asked another host: {requested}")

    def check_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"{message.text} ({message.location['url']})")

    with browser.new_context() as context:
        context.add_init_script(_REPORT_VIOLATIONS + init_script)
        page = context.new_page()
        page.on("console", check_console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: check_request(request.url))
        page.on("websocket", lambda socket: check_request(socket.url))
        page.goto(url)
        yield page
    unexpected = [
        complaint
        for complaint in complaints
        if not any(re.search(pattern, complaint) for pattern in expected)
    ]
    if unexpected:
        raise AssertionError("\n".join(["this went wrong in the page:", *unexpected]))


def write_speech(clip: Path, wav: Path, silence_s: float) -> float:
    """Write a clip and then silence as 16-bit mono WAV for the fake microphone; seconds of it."""
    speech = read_audio(clip)
    padded = np.concatenate([speech, np.zeros(round(silence_s * SAMPLE_RATE), np.float32)])
    write_wav(wav, soxr.resample(padded, SAMPLE_RATE, MICROPHONE_RATE), MICROPHONE_RATE)
    return len(padded) / SAMPLE_RATE


def write_wav(wav: Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write float32 samples in [-1, 1] as 16-bit mono."""
    pcm = np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype("<i2")
    with wave.open(str(wav), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(pcm.itemsize)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())
