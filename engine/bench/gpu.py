"""Every table of a device in one run of limited time: what a machine that is only lent allows.

Decides what comes first and how long it may take. Each table has a share of the time that is
left, so one that takes less leaves more to all behind it, and one that takes more leaves less;
what there is no time for is left out, by name. Whatever goes wrong with a table costs that one
alone, and the file is written after each: a run that is killed keeps what it has measured.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import torch

from engine.audio.units import SAMPLE_RATE
from engine.bench import attention, floor, formats, partials, requests, sessions
from engine.bench.direct import Audio, free_memory
from engine.bench.random_checkpoint import (
    PUBLISHED,
    forced_length_config,
    random_audio,
    random_checkpoint,
    random_engine,
)
from engine.bench.report import report
from engine.bench.time_box import TimeBox
from engine.errors import DeviceError
from engine.model.dims import ModelDims

CHECKPOINTS: Final = ("large-v3-turbo", "large-v3")
SECONDS: Final = 480.0  # a machine is lent for a quarter of an hour; it has to be set up too
REQUESTS: Final = (1, 16, 64, 256)
SESSIONS: Final = (200, 600, 1200)
SESSION_SECONDS: Final = 10.0  # of each number of sessions, behind the warm-up

PARTIAL_SECONDS: Final = 28.0  # the longest segment that the service makes

_SESSION_WARM_UP_S: Final = 3.0
_PARTIAL_INTERVAL_MS: Final = 400  # the protocol's default
_PARTIAL_UTTERANCES: Final = 2
_PARTIAL_SLOTS: Final = 32  # back ends are chosen over so many
_LANGUAGE: Final = "en"  # random weights would detect any
# Of the time, relative to each other. Two thirds of what tables 1 and 2 take is building engines.
# Finals of a published checkpoint are encoded in full unless one says otherwise.
_TRIMMED_SESSIONS: Final = "sessions with trimmed finals"
_SHARES: Final = {
    "floor": 1.0,
    "requests": 4.0,
    "sessions": 3.0,
    _TRIMMED_SESSIONS: 3.0,
    "partials": 2.0,
    "formats": 2.0,
    "attention": 5.0,
}

logger = logging.getLogger(__name__)

Rows = Sequence[Mapping[str, Any]]
Measured = tuple[Rows, Mapping[str, Any]]  # rows, and facts about them


@dataclass(frozen=True, slots=True)
class Part:
    """One table of one model (or of its own models), and its share of the time.

    `whole`: it cannot be ended early, so it is begun only where as long a one would still fit.
    `shown` makes of its rows what is printed.
    """

    title: str
    share: float
    measure: Callable[[TimeBox], Measured]
    whole: bool = False
    shown: Callable[[Rows], Rows] | None = None


def plan(
    recordings: Sequence[Audio],
    checkpoints: Sequence[str] = CHECKPOINTS,
    *,
    device: torch.device,
    dtype: torch.dtype,
    sizes: Mapping[str, ModelDims] = PUBLISHED,
) -> list[Part]:
    """All tables, what matters most first: those of the first model, attention, the others'.

    `recordings` of speech are what number formats are compared on.
    """

    @cache
    def agreed() -> dict[formats.Format, formats.Agreement]:
        return formats.agreements_on_speech(recordings, device=device, dtype=dtype)

    def of_model(name: str) -> list[Part]:
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        measures: dict[str, Callable[[TimeBox], Measured]] = {
            "floor": lambda box: floor.measure(name, box=box, sizes=sizes, **where),
            "requests": partial(measure_requests, name, REQUESTS, sizes=sizes, **where),
            "sessions": partial(
                measure_sessions, name, SESSIONS, SESSION_SECONDS, sizes=sizes, **where
            ),
            _TRIMMED_SESSIONS: partial(
                measure_sessions,
                name,
                SESSIONS,
                SESSION_SECONDS,
                sizes=sizes,
                context="trimmed",
                **where,
            ),
            "partials": partial(measure_partials, name, sizes=sizes, **where),
            "formats": lambda box: formats.measure(name, agreed(), box=box, sizes=sizes, **where),
        }
        return [
            Part(
                f"{table}, {name}",
                _SHARES[table],
                measure,
                whole=table == "requests",
                shown=sessions.turned if "sessions" in table else None,
            )
            for table, measure in measures.items()
        ]

    def of_attention(box: TimeBox) -> Measured:
        return attention.measure(
            attention.CHECKPOINTS, device=device, dtype=dtype, box=box, sizes=sizes
        )

    first, *others = checkpoints
    return [
        *of_model(first),
        Part("attention", _SHARES["attention"], of_attention),
        *(part for name in others for part in of_model(name)),
    ]


def run(
    parts: Sequence[Part],
    facts: Mapping[str, Any],
    output: Path,
    *,
    seconds: float = SECONDS,
    device: torch.device,
    clock: Callable[[], float] = perf_counter,
) -> bool:
    """Measure, print each table, and leave everything in `output` and on the last line as JSON.

    `facts` are what all of it must be read with. Whether nothing failed; what there was no time
    for is no failure.
    """
    end = clock() + seconds
    tables: list[dict[str, Any]] = []
    left_out: list[str] = []
    failed: list[str] = []
    document = {
        "benchmark": "bench gpu",
        **facts,
        "tables": tables,
        "left_out": left_out,
        "failed": failed,
    }
    longest_whole = 0.0
    dead = False
    for number, part in enumerate(parts):
        started = clock()
        left = end - started
        if dead or left <= (longest_whole if part.whole else 0.0):
            reason = "the device has failed" if dead else "no time"
            left_out.append(f"{part.title}: {reason}")
            continue
        try:
            share = part.share / sum(it.share for it in parts[number:])
            rows, found = part.measure(TimeBox(left * share, clock))
        except Exception as exc:  # the boundary: whatever a device or a library says
            logger.error("%s failed", part.title, exc_info=exc)
            failed.append(f"{part.title}: {type(exc).__name__}: {exc}")
            # No kernel can be launched after it.
            dead = isinstance(exc, torch.AcceleratorError | DeviceError)
        else:
            tables.append(
                {"table": part.title, "seconds": clock() - started, **found, "rows": list(rows)}
            )
            if rows:
                shown = part.shown(rows) if part.shown else rows
                report(f"bench {part.title}", rows, found, shown=shown)
        if part.whole:
            longest_whole = max(longest_whole, clock() - started)
        if not dead:
            free_memory(device)
        output.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    for sentence in left_out:
        print(f"left out: {sentence}")
    for sentence in failed:
        print(f"failed: {sentence}")
    output.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    print(json.dumps(document, ensure_ascii=False))
    return not failed


def measure_requests(
    name: str,
    counts: Sequence[int],
    box: TimeBox,
    *,
    device: torch.device,
    dtype: torch.dtype,
    sizes: Mapping[str, ModelDims] = PUBLISHED,
    **settings: Any,
) -> Measured:
    """Table 1 of the model that `sizes` has under `name`; it is measured whole or not at all.

    `settings` are EngineConfig's, as in table 2.
    """
    rows: list[dict[str, Any]] = []
    if box.admits(f"requests of {name}"):
        rows = requests.measure(
            name, counts, device=device, dtype=dtype, dims=sizes[name], box=box, **settings
        )
    return rows, {"checkpoint": name, **settings, "left_out": box.left_out}


def measure_sessions(
    name: str,
    counts: Sequence[int],
    seconds: float,
    box: TimeBox,
    *,
    device: torch.device,
    dtype: torch.dtype,
    sizes: Mapping[str, ModelDims] = PUBLISHED,
    **settings: Any,
) -> Measured:
    """Table 2 of the model that `sizes` has under `name`; each count is measured or left out."""
    checkpoint = random_checkpoint(name, device=device, dtype=dtype, dims=sizes[name])
    config = forced_length_config(**settings)
    engine = random_engine(checkpoint, config, device=device, dtype=dtype)
    rows: list[dict[str, Any]] = []
    for count in counts:
        if box.admits(f"{count} sessions"):
            rows += sessions.measure(
                engine, (count,), seconds, warm_up_s=_SESSION_WARM_UP_S, rehearse=not rows
            )
    return rows, {"checkpoint": name, "seconds": seconds, **settings, "left_out": box.left_out}


def measure_partials(
    name: str,
    box: TimeBox,
    *,
    device: torch.device,
    dtype: torch.dtype,
    seconds: float = PARTIAL_SECONDS,
    sizes: Mapping[str, ModelDims] = PUBLISHED,
) -> Measured:
    """Table 6 of the model that `sizes` has under `name`: windows that grow up to `seconds`.

    One utterance at a time, so the engines have graphs for no more.
    """
    checkpoint = random_checkpoint(name, device=device, dtype=dtype, dims=sizes[name])
    length = round(seconds * SAMPLE_RATE)
    rows = partials.measure(
        lambda config: random_engine(checkpoint, config, device=device, dtype=dtype),
        forced_length_config(num_slots=_PARTIAL_SLOTS, max_batch=1),
        [random_audio(length, seed=seed) for seed in range(_PARTIAL_UTTERANCES)],
        _PARTIAL_INTERVAL_MS,
        language=_LANGUAGE,
        compare=False,
        box=box,
    )
    facts = {"checkpoint": name, "growth": partials.growth(rows), "left_out": box.left_out}
    return rows, facts
