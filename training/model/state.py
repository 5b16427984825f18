"""A run on disk: everything the next slice goes on from, written whole or not at all."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from engine.model.dims import ModelDims
from training.errors import RecipeError
from training.human import People

STATE_FILE: Final = "state.pt"


@dataclass(slots=True)
class RunState:
    """Where a run is, and what it was made of.

    `average` are the weights averaged over the steps: what is exported. `base` is the exported
    checkpoint that the run began from, if any; `device` names what computed the latest slice.
    """

    dims: ModelDims
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[str, Any]
    step: int
    seconds_trained: float
    seconds_heard: float
    device: str
    base: str | None
    people: People


def save_state(directory: Path, state: RunState) -> Path:
    """Replace the state of the run in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / STATE_FILE
    partial = path.with_suffix(".partial")
    document = {name: getattr(state, name) for name in RunState.__dataclass_fields__}
    torch.save(document | {"dims": asdict(state.dims)}, partial)
    partial.rename(path)
    return path


def load_state(directory: Path, device: torch.device) -> RunState | None:
    """The state of the run in `directory`; None where it has not begun. Raises RecipeError."""
    path = directory / STATE_FILE
    if not path.is_file():
        return None
    document = torch.load(path, map_location=device, weights_only=True)
    try:
        return RunState(**document | {"dims": ModelDims(**document["dims"])})
    except (KeyError, TypeError) as exc:
        raise RecipeError(f"{path}: expected the state of a run: {exc}") from exc
