"""Live sessions, many at once, straight into the engine: how late finals and partials are.

Each simulated session speaks and pauses, and gives the engine what a server's session would, at
the moments at which it would. Its time is virtual: it goes on as real time does while the engine
works and skips what the engine has nothing to do in, so what is measured is what a clock on the
wall would have shown. All of it runs in one thread, the engine's; what a server does beside it
(sockets, detector, Python's lock) is `starling loadtest`'s to measure.
"""

import resource
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final

import numpy as np
import torch

from engine.assembly import Engine
from engine.audio.units import SAMPLE_RATE, seconds_from_samples
from engine.bench.random_checkpoint import random_audio
from engine.bench.session_driver import PATIENCE_S, Driven, Driver
from engine.bench.session_plan import ENDPOINT_SILENCE, Audio, plan_level, read_repeatedly
from engine.bench.virtual_clock import VirtualClock
from engine.events import UtteranceId
from engine.metrics import EngineMetrics

COUNTS: Final = (100, 200, 400, 800, 1200)

_ENDPOINT_MS: Final = 1000 * seconds_from_samples(ENDPOINT_SILENCE)
_DECODER_STEPS: Final = ("PrefillStep", "VerifyStep", "DecodeStep")
_STEPS: Final = ("EncodeStep", "ExtendStep", *_DECODER_STEPS)

# One for the process: the clock of an engine that is measured again must not go back.
_CLOCK: Final = VirtualClock()


def measure(
    engine: Engine,
    counts: Sequence[int] = COUNTS,
    seconds: float = 20.0,
    *,
    warm_up_s: float = 5.0,
    wall_cap_s: float = 120.0,
    audio: Audio | None = None,
    seed: int = 0,
    rehearse: bool = True,
) -> list[dict[str, Any]]:
    """A row for each number of sessions, all of them from `engine`, which is left idle.

    What counts are the finals asked for and the partials shown within `seconds` after a warm-up.
    A level that takes longer than `wall_cap_s`, or whose finals come too late, is given up, and
    `sustained` is "no". The thread is at work while it computes or waits for the device. Tokens
    are those that were chosen: with `append_only` most of a hypothesis is committed text, which
    is forced, so passes per token are more than without. `audio` [n] is what everybody says, over
    and over; without it, noise. Without `rehearse` what a device does only the first time is part
    of the first level's warm-up; an engine that is measured again needs none.
    """
    driver = Driver(engine, _CLOCK)
    utterance_ids = map(UtteranceId, count())
    read = read_repeatedly(random_audio(20 * SAMPLE_RATE, seed=seed) if audio is None else audio)

    def drive(sessions: int, warm_up_s: float, seconds: float) -> Driven:
        lasts_s = warm_up_s + seconds + PATIENCE_S
        timeline = plan_level(sessions, lasts_s, utterance_ids, read, seed=seed)
        return driver.drive(timeline, warm_up_s, seconds, wall_cap_s)

    if rehearse:
        drive(counts[0], 0.0, warm_up_s)
    return [
        _row(sessions, drive(sessions, warm_up_s, seconds), engine.metrics) for sessions in counts
    ]


def _row(sessions: int, driven: Driven, metrics: EngineMetrics) -> dict[str, Any]:
    before, after = driven.before, driven.after
    lasted_s = after.at_s - before.at_s
    heard = [driven.heard[utterance_id] for utterance_id in driven.counted]
    finals = [1000 * (it.final_s - it.end_s) for it in heard if it.final_s is not None]
    ages = [
        age
        for it in driven.heard.values()
        if it.end_s <= after.at_s
        for reading, age in it.partial_ages()
        if before.at_s <= reading < after.at_s
    ]
    steps = {kind: after.steps_since(before, kind) for kind in _STEPS}
    tokens, drafted = after.tokens - before.tokens, after.drafted - before.drafted
    failed = sum(it.failed for it in heard)
    row: dict[str, Any] = {
        "sessions": sessions,
        "sustained": "yes" if driven.complete and not failed else "no",
        "seconds": lasted_s,
        "finals": len(finals),
        "finals missing": len(driven.missing),
        "finals failed": failed,
    }
    for what, values in (
        ("end of speech to final", finals),
        ("the same beyond the endpoint silence", [it - _ENDPOINT_MS for it in finals]),
    ):
        for name, share in (("p50", 50), ("p95", 95), ("p99", 99), ("max", 100)):
            row[f"{what}, {name} ms"] = _percentile(values, share)
    for name, share in (("p50", 50), ("p95", 95), ("max", 100)):
        row[f"age of the newest partial, {name} s"] = _percentile(ages, share)
    seconds_at_work = sum(seconds for _, _, seconds in steps.values())
    row["device at work"] = _ratio(seconds_at_work, lasted_s)
    row["thread at work"] = _ratio(lasted_s - (after.skipped_s - before.skipped_s), lasted_s)
    for kind, (num, rows, seconds) in steps.items():
        name = kind.removesuffix("Step").lower()
        row[f"{name} steps / s"] = _ratio(num, lasted_s)
        row[f"rows / {name} step"] = _ratio(rows, num)
        row[f"ms / {name} step"] = _ratio(1000 * seconds, num)
    row["tokens / s"] = _ratio(tokens, lasted_s)
    row["drafts accepted"] = _ratio(after.accepted - before.accepted, drafted)
    row["passes / token"] = _ratio(sum(steps[kind][1] for kind in _DECODER_STEPS), tokens)
    row["peak memory GB"] = _peak_bytes(metrics.device) / 1e9
    row["rung"] = driven.rung
    return row


def _percentile(values: Sequence[float], share: float) -> float | None:
    """None where there are no values."""
    return float(np.percentile(values, share)) if values else None


def _ratio(part: float, whole: float) -> float | None:
    """None where there is nothing to be a part of."""
    return part / whole if whole else None


def _peak_bytes(device: str) -> int:
    """Of a GPU what tensors held during the level, else what the process held in its life."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux


def turned(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each figure and a column for each of `rows`: what fits on a page.

    A column is headed by its number of sessions, behind its model where `rows` name one.
    """
    marks = [name for name in ("model", "sessions") if name in rows[0]]
    heads = [" ".join(str(row[mark]) for mark in marks) for row in rows]
    return [
        {" ".join(marks): figure}
        | {head: row[figure] for head, row in zip(heads, rows, strict=True)}
        for figure in rows[0]
        if figure not in marks
    ]
