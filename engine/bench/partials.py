"""What partials of growing windows cost, by the window's length, and what they get wrong.

Every window is decoded at every interval, as in service: words that two hypotheses agree on are
committed. `trimmed` encodes each window from its beginning, `incremental` only what is new. What a
window says exactly is decoded beside them, without committing anything; random weights, which say
the same whatever they hear, are timed without it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.assembly import Engine
from engine.audio.units import SAMPLE_RATE, Samples, samples_from_ms
from engine.bench.time_box import TimeBox
from engine.config import EngineConfig, PartialContext
from engine.events import (
    AppendAudio,
    CancelUtterance,
    EngineEvent,
    HypothesisUpdated,
    OpenUtterance,
    UtteranceId,
    UtteranceOptions,
)
from engine.loop import Loop

# Windows are told apart by length, up to so many seconds.
_BOUNDS_S: Final = (2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 25.0, 30.0)
_SHORT_S, _LONG_S = 5.0, 25.0  # two of them, which `growth` compares
_COMPARED: Final[tuple[PartialContext, ...]] = ("trimmed", "incremental")
_ENCODES: Final = ("EncodeStep", "ExtendStep")


@dataclass(slots=True)
class _Cost:
    """Partials of windows of about one length."""

    partials: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0
    wall_s: float = 0.0
    words: int = 0
    wrong: int = 0


@dataclass(slots=True)
class _Run:
    """What one way of encoding said of each window, and what it cost."""

    said: dict[tuple[int, int], str] = field(default_factory=dict)  # by utterance and end
    costs: dict[float, _Cost] = field(default_factory=dict)  # by the bound of the length


def measure(
    build: Callable[[EngineConfig], Engine],
    config: EngineConfig,
    utterances: Sequence[NDArray[np.float32]],
    interval_ms: int,
    *,
    language: str | None = None,
    compare: bool = True,
    box: TimeBox | None = None,
) -> list[dict[str, Any]]:
    """A row for each way of encoding and each length; `utterances` are 16 kHz mono float32.

    Without `compare` nobody asks what windows say exactly. Each way is measured or left out as a
    whole, behind a rehearsal, for what is done only the first time.
    """
    box = box or TimeBox()
    options = UtteranceOptions(language=language, interim_interval=samples_from_ms(interval_ms))
    exact: _Run | None = None
    rows = []
    for context in _COMPARED:
        if not box.admits(f"{context} partials"):
            continue
        engine = build(replace(config, partial_context=context))
        if compare and context == "trimmed":
            exact = _grow(engine, utterances, replace(options, append_only=False))
        else:
            _grow(engine, utterances[:1], options)
        run = _grow(engine, utterances, options)
        if exact is not None:
            _compare(run, exact)
        rows += list(_rows(context, run, compared=compare))
    return rows


def growth(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How much more the longest partials of `rows` cost than short ones, by way of encoding.

    Windows of 20 to 25 s over windows of 2.5 to 5 s; a way without either is not there.
    """
    costs = {(row["partials"], row["windows up to, s"]): row["all ms"] for row in rows}
    return {
        context: costs[context, _LONG_S] / costs[context, _SHORT_S]
        for context in _COMPARED
        if (context, _LONG_S) in costs and (context, _SHORT_S) in costs
    }


def _compare(run: _Run, exact: _Run) -> None:
    """Count the words that `run` said otherwise."""
    for (utterance, end), text in run.said.items():
        cost = run.costs[_bound(end)]
        reference = exact.said.get((utterance, end), "").split()
        cost.words += len(reference)
        cost.wrong += _distance(reference, text.split())


def _rows(context: PartialContext, run: _Run, *, compared: bool) -> Iterator[dict[str, Any]]:
    for bound, cost in sorted(run.costs.items()):
        row = {
            "partials": context,
            "windows up to, s": bound,
            "number": cost.partials,
            "encode ms": 1000 * cost.encode_s / cost.partials,
            "decode ms": 1000 * cost.decode_s / cost.partials,
            "all ms": 1000 * cost.wall_s / cost.partials,
        }
        if compared:
            row["words unlike exact, %"] = 100 * cost.wrong / cost.words if cost.words else 0.0
        yield row


def _grow(
    engine: Engine, utterances: Sequence[NDArray[np.float32]], options: UtteranceOptions
) -> _Run:
    """Feed every utterance interval by interval and decode each window on its own."""
    run = _Run()
    events: list[EngineEvent] = []
    loop = Loop(engine, events.append)
    step = options.interim_interval
    for number, samples in enumerate(utterances):
        utterance_id = UtteranceId(number)
        loop.take([OpenUtterance(utterance_id, Samples(0), options)])
        for start in range(0, len(samples), step):
            encoded_s, decoded_s = _seconds(engine)
            began = perf_counter()
            events.clear()
            loop.take([AppendAudio(utterance_id, samples[start : start + step])])
            while loop.run_step():
                pass
            wall_s = perf_counter() - began
            updates = [event for event in events if isinstance(event, HypothesisUpdated)]
            if len(events) != 1 or not updates:
                continue  # too short for a partial, or a cut: nothing to compare
            (update,) = updates
            window = update.end - update.start
            now_encoded_s, now_decoded_s = _seconds(engine)
            cost = run.costs.setdefault(_bound(window), _Cost())
            cost.partials += 1
            cost.encode_s += now_encoded_s - encoded_s
            cost.decode_s += now_decoded_s - decoded_s
            cost.wall_s += wall_s
            if update.segment == 0:  # later ones begin where a cut was, which may differ
                run.said[number, window] = update.text
        loop.take([CancelUtterance(utterance_id)])
    return run


def _seconds(engine: Engine) -> tuple[float, float]:
    """The device's time for encoding and for all else, so far."""
    steps = engine.metrics.steps
    encoded = sum(steps[kind].seconds for kind in _ENCODES if kind in steps)
    return encoded, sum(kind.seconds for kind in steps.values()) - encoded


def _bound(window: int) -> float:
    return next((bound for bound in _BOUNDS_S if window <= bound * SAMPLE_RATE), inf)


def _distance(reference: Sequence[str], said: Sequence[str]) -> int:
    """Words to substitute, insert or delete (Levenshtein 1966)."""
    before = list(range(len(said) + 1))
    for row, word in enumerate(reference, start=1):
        current = [row]
        for column, other in enumerate(said, start=1):
            current.append(
                min(
                    before[column] + 1,
                    current[-1] + 1,
                    before[column - 1] + (word != other),
                )
            )
        before = current
    return before[-1]
