"""Take pictures of the page in its states: `python tools/make_page_pictures.py FOLDER`.

Needs Chromium, and a server with the embedded model, which it starts. docs/page.png is the one
called `speaking`.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, Page, expect  # noqa: E402

from tests.support.browser import browsers, write_speech  # noqa: E402
from tests.support.clips import DEMO  # noqa: E402
from tests.support.server_process import ServerProcess, restartable_server  # noqa: E402

WIDE: Final = (1120, 800)
NARROW: Final = (360, 760)
TIMEOUT_MS: Final = 60_000
HALF_SAID: Final = "When you stop"  # of the fifth sentence


def main() -> None:
    """Take all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with (
        browsers() as open_browser,
        restartable_server() as server,
        tempfile.TemporaryDirectory() as folder_of_speech,
    ):
        speech = Path(folder_of_speech) / "speech.wav"
        write_speech(DEMO, speech, silence_s=2)
        speaking = open_browser(speech)
        take(speaking, server, folder / "idle.png", WIDE, "light", until="idle")
        take(speaking, server, folder / "speaking.png", WIDE, "light", until="speaking")
        take(speaking, server, folder / "dark.png", WIDE, "dark", until="speaking")
        take(speaking, server, folder / "narrow.png", NARROW, "light", until="speaking")
        take(speaking, server, folder / "finished.png", WIDE, "light", until="finished")
        refused = open_browser(microphone="denied")
        take(refused, server, folder / "error.png", WIDE, "light", until="failed")


def take(
    browser: Browser,
    server: ServerProcess,
    path: Path,
    size: tuple[int, int],
    scheme: str,
    until: str,
) -> None:
    """One picture of a fresh page, `until` something is to be seen on it."""
    with browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
    ) as context:
        page = context.new_page()
        page.goto(server.page)
        expect(page.locator("#model")).to_have_text("embedded")
        if until != "idle":
            page.locator("#start").click()
        wait_until(page, until)
        page.screenshot(path=path)


def wait_until(page: Page, until: str) -> None:
    """Until the page is as the picture is to show it."""
    match until:
        case "speaking":
            expect(page.locator("#partial")).to_contain_text(HALF_SAID, timeout=TIMEOUT_MS)
        case "finished":
            expect(page.locator("#finals p")).to_have_count(9, timeout=TIMEOUT_MS)
            page.locator("#start").click()
            expect(page.locator("#state")).to_have_attribute("data-phase", "done")
        case "failed":
            expect(page.locator("#state")).to_have_attribute("data-phase", "failed")
        case _:
            pass


if __name__ == "__main__":
    main()
