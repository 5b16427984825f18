"""The `train` command: steps until the run is over or this slice's time is.

A run may be made of slices: each goes on from the last state, and the learning rate follows the
run as a whole. The device does everything to audio; other processes choose what is heard.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from engine.assembly import resolve_device, resolve_dtype
from engine.audio.units import SAMPLE_RATE
from engine.model.dims import ModelDims
from training.data.batches import Batch
from training.errors import RecipeError
from training.human import People
from training.model.losses import Losses, LossFunction
from training.model.network import TrainableWhisper, load_exported
from training.model.optimiser import Optimiser, Rates, rate_factor
from training.model.state import RunState, load_state, save_state
from training.progress import Bar, progress_bar
from training.signal.features import LogMelFeatures
from training.signal.mixing import Mixer

logger = logging.getLogger(__name__)

LOG_FILE: Final = "log.jsonl"
_SAVE_EVERY_S: Final = 120.0
_AVERAGE_EVERY: Final = 10  # steps
_AVERAGE_DECAY: Final = 0.98


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How long a run is, in all and now.

    Either `steps` or `run_seconds` of training end it; `slice_seconds` end this call, whatever
    is left. A line is logged every `log_every` steps. `base` is the exported checkpoint that the
    run begins from, if not from nothing; `people` are heard in this slice.
    """

    steps: int | None
    run_seconds: float | None
    slice_seconds: float | None
    log_every: int
    rates: Rates
    seed: int
    base: Path | None = None
    people: People = field(default_factory=dict)

    def progress(self, step: int, seconds_trained: float) -> float:
        """How much of the run is behind it, from 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        if self.run_seconds is not None:
            return min(1.0, seconds_trained / self.run_seconds)
        raise RecipeError("expected a number of steps or of seconds for the run, found neither")


class Trainer:
    """One slice of a run. Touched only by the thread that made it."""

    def __init__(
        self,
        directory: Path,
        dims: ModelDims,
        plan: RunPlan,
        uncertain_tokens: list[int],
        num_text_tokens: int,
        device: str = "auto",
    ) -> None:
        self._directory = directory
        self._plan = plan
        self._device = resolve_device(device)
        self._autocast = _autocast_dtype(self._device)
        torch.manual_seed(plan.seed)
        network = TrainableWhisper(dims).to(self._device)
        self._network = network
        self._base = None if plan.base is None else os.fspath(plan.base.resolve())
        self._people = dict(plan.people)
        state = load_state(directory, self._device)
        if state is None and plan.base is not None:
            load_exported(network, plan.base)
        self._optimiser = Optimiser(network, plan.rates)
        self._average = {name: p.detach().clone() for name, p in network.named_parameters()}
        self._step = 0
        self._seconds_before = 0.0
        self._heard_s = 0.0
        if state is not None:
            self._resume(state)
        self._mixer = Mixer(self._device)
        self._features = LogMelFeatures(dims.n_mels, self._device)
        self._loss = LossFunction(num_text_tokens, dims.n_vocab, uncertain_tokens, self._device)

    @property
    def step(self) -> int:
        """Steps of the run so far."""
        return self._step

    def run(self, batches: Iterator[Batch]) -> list[dict[str, float]]:
        """Train until run or slice is over; returns what was logged. Saves the state."""
        plan = self._plan
        began = saved = time.monotonic()
        lines: list[dict[str, float]] = []
        waiting: list[Losses] = []
        unit = plan.steps or plan.run_seconds or 0
        done = self._step if plan.steps else self._seconds_before
        with progress_bar("training", unit, done) as bar:
            while True:
                slice_s = time.monotonic() - began
                trained_s = self._seconds_before + slice_s
                progress = plan.progress(self._step, trained_s)
                if progress >= 1 or (plan.slice_seconds and slice_s >= plan.slice_seconds):
                    break
                waiting.append(self._train_on(next(batches).to(self._device), progress))
                if self._step % plan.log_every == 0:
                    lines.append(self._log(waiting, trained_s, slice_s, bar))
                    waiting.clear()
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    self._save(trained_s)
                    saved = time.monotonic()
        self._save(self._seconds_before + time.monotonic() - began)
        return lines

    def _train_on(self, batch: Batch, progress: float) -> Losses:
        waves = self._mixer.mix(batch)
        features = self._features.features(waves, batch.lengths)
        is_half = self._autocast is not torch.float32
        with torch.autocast(self._device.type, self._autocast, enabled=is_half):
            outputs = self._network(features, batch.inputs)
        # What was exported finds its words, and its head for CTC is gone.
        aligned = self._base is not None
        losses = self._loss.losses(outputs, batch, aligned=aligned)
        total = losses.total(self._step, aligned=aligned)
        total.backward()  # type: ignore[no-untyped-call]
        if not self._optimiser.step(rate_factor(progress)):
            logger.warning("step %d: gradients were not finite, left out", self._step)
        self._step += 1
        self._heard_s += len(batch.lengths) * batch.context / SAMPLE_RATE
        if self._step % _AVERAGE_EVERY == 0:
            self._update_average()
        return losses

    @torch.no_grad()
    def _update_average(self) -> None:
        """A running mean that forgets its beginning."""
        count = self._step / _AVERAGE_EVERY
        decay = min(_AVERAGE_DECAY, count / (count + 9))
        for name, parameter in self._network.named_parameters():
            self._average[name].lerp_(parameter, 1 - decay)

    def _log(
        self, waiting: list[Losses], trained_s: float, slice_s: float, bar: Bar
    ) -> dict[str, float]:
        names = Losses.__dataclass_fields__
        means = {
            name: float(torch.stack([getattr(x, name).detach() for x in waiting]).mean())
            for name in names
        }
        line = {"step": float(self._step), "seconds": round(trained_s, 1), **means}
        line["heard_h"] = self._heard_s / 3600
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({k: round(v, 4) for k, v in line.items()}) + "\n")
        note = f"text {means['text']:.2f} ctc {means['ctc']:.2f} right {means['accuracy']:.0%}"
        bar.reach(self._step if self._plan.steps else trained_s, f"{note} {slice_s:.0f} s")
        logger.info("step %d: %s, %.1f h heard", self._step, note, line["heard_h"])
        return line

    def _resume(self, state: RunState) -> None:
        if state.dims != self._network.dims:
            raise RecipeError(
                f"{self._directory}: expected a run of {self._network.dims}, found {state.dims}"
            )
        if self._base not in {None, state.base}:
            raise RecipeError(
                f"{self._directory}: expected a run that began from {self._base}, "
                f"found one from {state.base or 'nothing'}"
            )
        self._base = state.base
        self._people = state.people | self._people
        self._network.load_state_dict(state.weights)
        self._average = state.average
        self._optimiser.load_state_dict(state.optimiser)
        self._step = state.step
        self._seconds_before = state.seconds_trained
        self._heard_s = state.seconds_heard
        # Another slice draws other noise.
        torch.manual_seed(self._plan.seed + state.step)
        logger.info("goes on from step %d, %.0f s", state.step, state.seconds_trained)

    def _save(self, trained_s: float) -> None:
        weights: dict[str, Any] = self._network.state_dict()
        save_state(
            self._directory,
            RunState(
                dims=self._network.dims,
                weights=weights,
                average=self._average,
                optimiser=self._optimiser.state_dict(),
                step=self._step,
                seconds_trained=trained_s,
                seconds_heard=self._heard_s,
                device=_name(self._device),
                base=self._base,
                people=self._people,
            ),
        )


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"


def _autocast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return resolve_dtype("auto", device)
