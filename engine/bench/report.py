"""How every benchmark reports: a table for people, then one JSON line for everybody else."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


def dtype_name(dtype: torch.dtype) -> str:
    """As settings have it: "float16"."""
    return str(dtype).removeprefix("torch.")


def environment(model: str, device: str, dtype: str) -> dict[str, Any]:
    """What a figure must be read with: commit, hardware, versions, checkpoint."""
    return {
        "commit": _commit(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "model": model,
        "device": device,
        "dtype": dtype,
    }


def report(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    *,
    shown: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Print `rows`, which share their keys, as a table, then everything as one JSON line.

    `shown`, if given, stand in the table in their place.
    """
    shown = shown or rows
    table = Table(title=title)
    for column in shown[0]:
        table.add_column(column, justify="right")
    for row in shown:
        table.add_row(*(_shown(value) for value in row.values()))
    Console().print(table)
    print(json.dumps({"benchmark": title, **facts, "rows": list(rows)}, ensure_ascii=False))


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _commit() -> str | None:
    """The commit of a checkout; None for an installed package or where there is no git."""
    root = Path(__file__).resolve().parents[2]
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
