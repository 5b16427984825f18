"""The test bench tested: no fault of a page goes unnoticed, no browser goes missing in silence."""

import threading
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.browser import (
    BROWSER_VARIABLE,
    REQUIRE_VARIABLE,
    browser_program,
    browsers,
    watched_page,
    write_speech,
)
from tests.support.clips import TWO_SENTENCES, read_clip


class Site(BaseHTTPRequestHandler):
    """One page whose policy allows scripts of its own and connections to anywhere."""

    def do_GET(self) -> None:
        body = b"<!doctype html><link rel=icon href=data:><p>hello"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-security-policy", "script-src 'self'")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers() as open_browser:
        yield open_browser()


FAULTS = {
    "console.error('that was wrong')": "that was wrong",
    "setTimeout(() => { throw new Error('nobody caught me'); })": "nobody caught me",
    "document.body.insertAdjacentHTML('beforeend', '<p onclick=x()>')": "the policy forbids inline",
    "fetch('http://127.0.0.2:9/').catch(() => 0)": "asked another host: http://127.0.0.2:9/",
    "void new WebSocket('ws://127.0.0.2:9/')": "asked another host: ws://127.0.0.2:9/",
}


def provoke(browser: Browser, site: str, script: str, *expected: str) -> None:
    with watched_page(browser, site, expected=expected) as page:
        page.evaluate(script)
        page.wait_for_timeout(100)  # for what is not said at once


def test_a_page_in_which_nothing_goes_wrong_passes(browser: Browser, site: str) -> None:
    provoke(browser, site, "console.log('all is well')")


@pytest.mark.parametrize(("script", "complaint"), FAULTS.items())
def test_each_fault_of_a_page_fails_its_test(
    browser: Browser, site: str, script: str, complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        provoke(browser, site, script)


def test_a_fault_that_a_test_expects_passes(browser: Browser, site: str) -> None:
    provoke(browser, site, "console.error('that was wrong')", "was wrong")


def test_without_a_browser_a_test_is_skipped_or_fails_where_one_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(BROWSER_VARIABLE, "no-such-browser")
    monkeypatch.delenv(REQUIRE_VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-browser"):
        browser_program()
    monkeypatch.setenv(REQUIRE_VARIABLE, "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-browser"):
        browser_program()


def test_what_the_microphone_says_is_the_clip_and_then_nothing(tmp_path: Path) -> None:
    wav = tmp_path / "speech.wav"
    seconds = write_speech(TWO_SENTENCES, wav, silence_s=1)
    assert seconds == len(read_clip(TWO_SENTENCES)) / 16_000 + 1
    with wave.open(str(wav)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 48_000)
        assert file.getnframes() == round(seconds * 48_000)
        pcm = file.readframes(file.getnframes())
    assert any(pcm[: -2 * 48_000])
    assert not any(pcm[-48_000:])
