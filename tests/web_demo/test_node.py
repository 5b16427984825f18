"""The tests of the page's own modules, as part of the whole."""

import subprocess
from pathlib import Path

from tests.support.node import node

ROOT = Path(__file__).parents[2]


def test_the_modules_of_the_page_pass_their_own_tests() -> None:
    # By name: what `node --test` makes of a folder differs between versions.
    files = sorted(path.relative_to(ROOT) for path in (ROOT / "tests/web_demo").glob("*.test.js"))
    assert files
    ran = subprocess.run(
        [node(), "--test", *files],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, f"\n{ran.stdout}"


def test_every_test_of_a_module_stands_beside_the_others_and_tests_one_that_exists() -> None:
    tests = list((ROOT / "tests/web_demo").rglob("*.test.js"))
    assert [path for path in tests if path.parent.name != "web_demo"] == []
    modules = {path.stem for path in (ROOT / "web_demo").glob("*.js")}
    assert {path.name.removesuffix(".test.js") for path in tests} <= modules
