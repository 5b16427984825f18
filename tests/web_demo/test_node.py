"""The tests of the page's own modules, as part of the whole."""

import re
import subprocess
from pathlib import Path

from tests.support.node import ROOT, node

IN_BROWSER = "only touches the document: tests/e2e/test_page.py runs it in a browser"
# Every module without a test file of its own, and why.
UNTESTED_MODULES = {
    "app": IN_BROWSER,
    "dom": IN_BROWSER,
    "figures_view": IN_BROWSER,
    "recording_error": "sentences only, which the tests of the recordings read",
    "settings": IN_BROWSER,
    "timeline_view": IN_BROWSER,
    "transcript_actions": IN_BROWSER,
    "transcript_view": IN_BROWSER,
}


def files_of_tests() -> list[Path]:
    """By name: what `node --test` makes of a folder differs between versions."""
    return sorted((ROOT / "tests/web_demo").glob("*.test.js"))


def count_of(what: str, summary: str) -> int:
    """What `node --test` says at its end: `# tests 12`."""
    (count,) = re.findall(rf"^# {what} (\d+)$", summary, re.MULTILINE)
    return int(count)


def test_the_modules_of_the_page_pass_their_own_tests() -> None:
    ran = subprocess.run(
        [node(), "--test", "--test-reporter=tap", *files_of_tests()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, f"\n{ran.stdout}"
    # A file without a test counts as one that passed, so there have to be more than files.
    assert count_of("pass", ran.stdout) == count_of("tests", ran.stdout) > len(files_of_tests())


def test_every_module_has_a_test_file_of_its_name_or_a_reason() -> None:
    modules = {path.stem for path in (ROOT / "web_demo").glob("*.js")}
    tested = {path.name.removesuffix(".test.js") for path in files_of_tests()}
    assert tested | set(UNTESTED_MODULES) == modules
    assert tested & set(UNTESTED_MODULES) == set()


def test_every_file_of_tests_is_found_and_has_one() -> None:
    found = files_of_tests()
    assert [path.name for path in found if "\ntest(" not in path.read_text("utf-8")] == []
    assert sorted((ROOT / "tests/web_demo").rglob("*.test.js")) == found
