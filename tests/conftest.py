import os

# Before torch is imported anywhere: as in the `starling` command, threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from hypothesis import settings

# The same examples on every run and machine; no deadline, because a busy machine is no failure.
settings.register_profile("ci", derandomize=True, deadline=None, database=None)
settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    """Have kernels interpreted on the CPU, but where tests of a GPU are asked for.

    Triton decides which when a kernel is defined, so this comes before any of them is imported.
    """
    if config.getoption("markexpr") != "gpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")
