"""The test tree is the source tree, and what is to stay light does."""

import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("engine", "stream_server", "clients", "training")
# Tests of several modules at once, or of none in particular.
UNMIRRORED_TESTS = ("architecture", "benchmarks", "e2e", "gpu", "web_demo")
# Every module without a test file of its own, and why.
UNTESTED_MODULES = {
    "stream_server/__main__.py": "calls cli.main, and is run by cli's own test",
}


def modules() -> list[Path]:
    """Every module that has code, relative to the root."""
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in found if path.name != "__init__.py")


def dotted(module: Path) -> str:
    return ".".join(module.with_suffix("").parts)


def loaded_by(imported: Iterable[str]) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after importing these modules."""
    program = f"import {', '.join(imported)}, sys; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in ran.stdout.split()}


def pure_modules() -> list[str]:
    """What the contracts of import-linter say must decide without torch, with submodules."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (pure,) = (it for it in contracts if it["name"].startswith("Decisions are torch-free"))
    names = tuple(pure["source_modules"])
    under = tuple(f"{name}." for name in names)
    return [name for name in map(dotted, modules()) if name in names or name.startswith(under)]


@pytest.mark.parametrize("module", modules(), ids=str)
def test_every_module_has_a_test_file_at_the_same_path(module: Path) -> None:
    mirror = ROOT / "tests" / module.with_name(f"test_{module.name}")
    assert mirror.is_file() != (str(module) in UNTESTED_MODULES)


def test_every_test_file_has_a_module_at_the_same_path() -> None:
    tests = [path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")]
    orphans = []
    for path in tests:
        if path.parts[0] in UNMIRRORED_TESTS:
            continue
        module = path.with_name(path.name.removeprefix("test_"))
        if not (ROOT / module).is_file() and not (ROOT / "tests" / module).is_file():
            orphans.append(str(path))
    assert orphans == []
    assert len(tests) > len(modules())


def test_files_of_tests_are_found_by_their_name() -> None:
    """A file with tests that is not called test_… would never be run."""
    unfound = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if not path.name.startswith("test_") and "\ndef test_" in path.read_text()
    ]
    assert unfound == []


def test_importing_a_package_imports_nothing_else() -> None:
    inits = [path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")]
    assert inits
    assert [str(path) for path in inits if path.read_text()] == []


def test_the_protocol_is_a_leaf() -> None:
    loaded = loaded_by(["stream_server.protocol"])
    assert "stream_server" in loaded
    assert not loaded & {"numpy", "torch", "websockets", "engine", "clients"}


def test_a_client_loads_neither_the_model_nor_the_engine() -> None:
    loaded = loaded_by(["clients.client", "clients.file", "clients.microphone"])
    assert {"clients", "websockets"} <= loaded
    assert not loaded & {"torch", "engine", "starlette"}


def test_what_decides_loads_no_torch_and_no_server() -> None:
    pure = pure_modules()
    assert {"engine.config", "engine.scheduling.scheduler", "stream_server.session"} <= set(pure)
    loaded = loaded_by(pure)
    assert "numpy" in loaded
    assert not loaded & {"torch", "websockets", "starlette", "uvicorn", "transformers"}
