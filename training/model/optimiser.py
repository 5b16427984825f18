"""Muon for the hidden matrices, AdamW for the rest, and one rate over a run for both."""

import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from training.model.muon import Muon
from training.model.network import TrainableWhisper

_WARM_UP_SHARE: Final = 0.03
_FIRST: Final = 0.01
# Most of the gain comes while the rate falls, so it falls for most of the run.
_FLAT_SHARE: Final = 0.3
_LEAST: Final = 0.02
_LARGEST_NORM: Final = 1.0
_MATRIX_DECAY: Final = 0.02


@dataclass(frozen=True, slots=True)
class Rates:
    """Peak learning rates."""

    muon: float
    adamw: float


def rate_factor(progress: float) -> float:
    """The share of the peak rate with `progress` of the run (0 to 1) behind it."""
    falling = max(_LEAST, min(1.0, (1 - progress) / (1 - _FLAT_SHARE)))
    return min(1.0, _FIRST + progress / _WARM_UP_SHARE) * falling


class Optimiser:
    """Both optimisers as one. Touched only by the training loop."""

    def __init__(self, network: TrainableWhisper, rates: Rates) -> None:
        hidden = [p for name, p in _trained(network) if _is_hidden_matrix(name, p)]
        others = [p for name, p in _trained(network) if not _is_hidden_matrix(name, p)]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": _MATRIX_DECAY},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._others = others
        self._rates = rates
        self._muon = Muon(hidden)
        is_fused = others[0].device.type == "cuda"
        self._adamw = torch.optim.AdamW(groups, lr=rates.adamw, betas=(0.9, 0.98), fused=is_fused)

    def step(self, factor: float) -> bool:
        """Take a step at that share of the peak rates; False where gradients are not finite."""
        norm: Tensor = nn.utils.clip_grad_norm_(self._others, _LARGEST_NORM)
        is_finite = math.isfinite(float(norm))
        if is_finite:
            for group in self._adamw.param_groups:
                group["lr"] = self._rates.adamw * factor
            self._muon.step(self._rates.muon * factor)
            self._adamw.step()
        self._muon.zero_grad()
        self._adamw.zero_grad()
        return is_finite

    def state_dict(self) -> dict[str, Any]:
        """What a later run goes on from."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])


def _trained(network: TrainableWhisper) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in network.named_parameters() if p.requires_grad]


def _is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and ".layers." in name
