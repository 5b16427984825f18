"""Node, which runs the page's modules in tests: where it is, and one program in it."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

REQUIRE_VARIABLE: Final = "STARLING_REQUIRE_BROWSER"  # set: without node, tests fail
ROOT: Final = Path(__file__).parents[2]
_LIMIT_S: Final = 50  # below pytest's own limit, so that a hang is told as one


def node() -> Path:
    """Where node is. Without it the test is skipped, or fails where one is required."""
    if found := shutil.which("node"):
        return Path(found)
    reason = "needs node, which is not on PATH"
    if os.environ.get(REQUIRE_VARIABLE):
        pytest.fail(reason)
    pytest.skip(reason)


def run_module(source: str, given: object = None) -> Any:
    """What the ES module `source` makes of `given`, both ways as JSON.

    In it `given` is a constant, `answer(value)` is to be called once, and the page's modules are
    imported as "./web_demo/….js".
    """
    program = (
        'import { readFileSync } from "node:fs";\n'
        'const given = JSON.parse(readFileSync(0, "utf8"));\n'
        "const answer = (value) => process.stdout.write(JSON.stringify(value));\n" + source
    )
    ran = subprocess.run(
        [node(), "--input-type=module", "--eval", program],
        cwd=ROOT,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=_LIMIT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)
