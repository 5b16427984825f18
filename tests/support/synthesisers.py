"""Whether a synthesiser is installed here, and whether its absence is a failure."""

import os
from ctypes.util import find_library

import pytest


def needs_espeak() -> None:
    """Skip the test where espeak-ng is missing; fail it where it must not be."""
    if find_library("espeak-ng") is None:
        missing = "espeak-ng is not installed"
        if os.environ.get("STARLING_REQUIRE_ESPEAK"):
            pytest.fail(missing)
        pytest.skip(missing)
