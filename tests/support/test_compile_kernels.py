"""Every kernel compiles for the GPUs we mean, fits them, and keeps its numbers in registers."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

pytest.importorskip("triton")

ROOT: Final = Path(__file__).parents[2]
# Bytes of a thread. Up to 8 were seen on sm_90 and 20 elsewhere, of addresses that outlive a loop
# and cost nothing. A tile that is cut too large spills its accumulators, hundreds of bytes of them,
# in every turn of its loop.
MOST_SPILLED: Final = 64

# One kernel that is no program, and one for which neither memory nor registers suffice.
BROKEN_PROGRAM: Final = """
from dataclasses import replace

import torch
import triton
import triton.language as tl

from tests.support.compile_kernels import TARGETS, Call, Compiler


@triton.jit
def broken(numbers):
    tl.store(numbers + tl.arange(0, 3), 1.0)


@triton.jit
def too_large(numbers):
    at = tl.arange(0, 32)[:, None] * 32 + tl.arange(0, 32)[None, :]
    tile = tl.load(numbers + at)
    tl.store(numbers + at, tl.dot(tile, tl.trans(tile), input_precision="tf32"))


numbers = torch.empty(1024)
compiler = Compiler(replace(TARGETS["sm_80"], shared_bytes=1024))
with compiler.installed():
    compiler.call(Call("not at all", lambda: broken[(1,)](numbers)))
    compiler.call(Call("few registers", lambda: too_large[(1,)](numbers, num_warps=1, maxnreg=40)))
first, second = compiler.compiled
print(first.call, "power of 2" in first.error)
print(second.call, repr(second.error), second.resident, second.registers, second.spilled > 64)
"""


def run_python(arguments: Sequence[str], cache: Path, interpret: str = "0") -> str:
    """What a fresh interpreter printed, whose compiled kernels go to `cache`."""
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TRITON_INTERPRET": interpret,
            "TRITON_CACHE_DIR": str(cache),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def compile_kernels(target: str, dtype: str, cache: Path, *options: str) -> dict[str, Any]:
    """The last line of the program: `kernels` that there are, and `rows` that were compiled."""
    module = "tests.support.compile_kernels"
    arguments = ["-m", module, "--target", target, "--dtype", dtype, *options]
    document: dict[str, Any] = json.loads(run_python(arguments, cache).splitlines()[-1])
    return document


def assert_all_fit(document: dict[str, Any]) -> None:
    rows = document["rows"]
    assert [row for row in rows if row["error"]] == []
    assert {row["kernel"] for row in rows} == set(document["kernels"])
    assert [row for row in rows if row["resident"] == 0] == []
    assert [row for row in rows if row["spilled"] > MOST_SPILLED] == []


@pytest.mark.parametrize(("target", "dtype"), [("sm_90", "bfloat16"), ("sm_80", "float16")])
def test_every_kernel_compiles_fits_and_spills_next_to_nothing(
    target: str, dtype: str, tmp_path: Path
) -> None:
    assert_all_fit(compile_kernels(target, dtype, tmp_path, "--brief"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("target", ["sm_80", "sm_89", "sm_90"])
def test_every_shape_compiles_fits_and_spills_next_to_nothing(
    target: str, dtype: str, tmp_path: Path
) -> None:
    assert_all_fit(compile_kernels(target, dtype, tmp_path))


def test_a_kernel_that_does_not_compile_or_fit_is_reported_and_the_next_is_tried(
    tmp_path: Path,
) -> None:
    program = tmp_path / "broken.py"  # Triton reads the source of what it compiles from a file
    program.write_text(BROKEN_PROGRAM)
    said = run_python([str(program)], tmp_path).splitlines()
    assert said == ["not at all True", "few registers '' 0 40 True"]


def test_interpreted_kernels_are_refused(tmp_path: Path) -> None:
    arguments = ["-m", "tests.support.compile_kernels", "--target", "sm_90"]
    with pytest.raises(AssertionError, match="set TRITON_INTERPRET to 0"):
        run_python(arguments, tmp_path, interpret="1")
