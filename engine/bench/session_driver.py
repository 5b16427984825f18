"""Drives an engine through one level of sessions after the other."""

import gc
from collections import deque
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Final

import torch

from engine.assembly import Engine
from engine.audio.units import seconds_from_samples
from engine.bench.session_listener import Heard, Listener
from engine.bench.session_plan import Timeline
from engine.bench.virtual_clock import VirtualClock
from engine.events import CancelUtterance, UtteranceId
from engine.loop import Loop
from engine.metrics import EngineMetrics

PATIENCE_S: Final = 3.0  # a final that comes later is one that the engine did not keep up with
_REST_S: Final = 30.0  # between two levels: what the engine's load meter remembers


@dataclass(frozen=True, slots=True)
class Figures:
    """What the engine had counted at one reading."""

    at_s: float
    skipped_s: float
    steps: dict[str, tuple[int, int, float]]  # of each kind: steps, rows, seconds
    tokens: int
    drafted: int
    accepted: int

    @classmethod
    def read(cls, metrics: EngineMetrics, clock: VirtualClock) -> "Figures":
        """Now."""
        steps = {kind: (it.count, it.rows, it.seconds) for kind, it in metrics.steps.items()}
        return cls(clock(), clock.skipped, steps, metrics.tokens, metrics.drafted, metrics.accepted)

    def steps_since(self, before: "Figures", kind: str) -> tuple[int, int, float]:
        """Steps, rows and seconds of one kind."""
        num, rows, seconds = self.steps.get(kind, (0, 0, 0.0))
        num_before, rows_before, seconds_before = before.steps.get(kind, (0, 0, 0.0))
        return num - num_before, rows - rows_before, seconds - seconds_before


@dataclass(frozen=True, slots=True)
class Driven:
    """A level as it went.

    `counted` are the utterances whose final was asked for within the window, `missing` those of
    them that had none in the end. `rung` is the highest that the engine was on.
    """

    heard: dict[UtteranceId, Heard]
    counted: set[UtteranceId]
    missing: set[UtteranceId]
    before: Figures
    after: Figures
    complete: bool
    rung: int


class Driver:
    """Drives one engine through one level after the other, in the time of `clock`.

    Touched only by the thread that measures.
    """

    def __init__(self, engine: Engine, clock: VirtualClock) -> None:
        self._metrics = engine.metrics
        self._clock = clock
        self._listener = Listener(clock)
        self._loop = Loop(engine, self._listener, clock)

    def drive(
        self, timeline: Timeline, warm_up_s: float, seconds: float, wall_cap_s: float
    ) -> Driven:
        """Give the engine what is due until all finals have come; leaves it idle.

        What counts begins `warm_up_s` after the first sample and lasts `seconds`; all of it may
        take `wall_cap_s` of real time.
        """
        if self._metrics.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            driven = self._run(timeline, warm_up_s, seconds, wall_cap_s)
        finally:
            gc.unfreeze()
        self._loop.take(map(CancelUtterance, timeline.speeches))
        while self._loop.run_step():
            pass
        if self._metrics.device == "cuda":
            # What cancelled steps took is known once they are over, and wanted by then.
            torch.cuda.synchronize()
            self._loop.run_step()
        return driven

    def _run(
        self, timeline: Timeline, warm_up_s: float, seconds: float, wall_cap_s: float
    ) -> Driven:
        loop, clock, listener, metrics = self._loop, self._clock, self._listener, self._metrics
        origin_s = clock() + _REST_S
        starts_s = origin_s + warm_up_s
        ends_s = starts_s + seconds
        last_s = ends_s + PATIENCE_S
        heard = {
            utterance_id: Heard(
                origin_s + seconds_from_samples(speech.start),
                origin_s + seconds_from_samples(speech.end),
            )
            for utterance_id, speech in timeline.speeches.items()
        }
        asked_s = {
            utterance_id: origin_s + seconds_from_samples(speech.finished)
            for utterance_id, speech in timeline.speeches.items()
        }
        listener.listen(
            heard, {it for it, at in asked_s.items() if starts_s <= at < ends_s}, origin_s
        )
        waiting = deque(
            (origin_s + seconds_from_samples(it.at), it.command) for it in timeline.dues
        )
        before: Figures | None = None
        after: Figures | None = None
        rung = 0
        # These are many small objects that the collector would look through again and again, at
        # the cost of steps; no server has them.
        gc.collect()
        gc.freeze()
        clock.skip_to(origin_s)
        gives_up = perf_counter() + wall_cap_s
        while True:
            now = clock()
            if before is None and now >= starts_s:
                before = Figures.read(metrics, clock)
            if after is None and now >= ends_s:
                after = Figures.read(metrics, clock)
            if before is not None and after is None:
                rung = max(rung, metrics.rung)
            if after is not None and (now >= last_s or not listener.awaited):
                break
            if perf_counter() >= gives_up:
                break
            due = []
            while waiting and waiting[0][0] <= now:
                due.append(waiting.popleft()[1])
            loop.take(due)
            if not loop.run_step():
                marks = [at for at in (starts_s, ends_s, last_s) if at > now]
                clock.skip_to(min([*marks, *(at for at, _ in islice(waiting, 1))]))
        complete = after is not None and not listener.awaited
        after = after or Figures.read(metrics, clock)
        counted = {it for it, at in asked_s.items() if starts_s <= at < after.at_s}
        return Driven(
            heard, counted, counted & listener.awaited, before or after, after, complete, rung
        )
