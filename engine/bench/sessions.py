"""Live sessions, many at once, straight into the engine: how late finals and partials are.

Each simulated session speaks and pauses, and gives the engine what a server's session would
(docs/decisions/0001), at the moments at which it would. Its time is virtual: it goes on as real
time does while the engine works and skips what the engine has nothing to do in, so what is
measured is what a clock on the wall would have shown. All of it runs in one thread, the engine's;
what a server does beside it (sockets, detector, Python's lock) is `starling loadtest`'s to measure.

    python -m engine.bench.sessions large-v3-turbo --device cuda

Planning who says what and when is pure and follows from the seed. Positions count 16 kHz samples
of a session's audio, whose first is heard at the same moment in all sessions.
"""

import gc
import random
import resource
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from math import log
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from engine.assembly import Engine, resolve_device, resolve_dtype
from engine.audio.units import (
    SAMPLE_RATE,
    Samples,
    samples_from_ms,
    samples_from_seconds,
    seconds_from_samples,
)
from engine.bench.random_checkpoint import (
    PUBLISHED,
    benchmark_parser,
    counts_argument,
    forced_length_config,
    random_audio,
    random_checkpoint,
    random_engine,
)
from engine.bench.report import environment, report
from engine.events import (
    AppendAudio,
    CancelUtterance,
    Command,
    EngineEvent,
    FinishUtterance,
    HypothesisUpdated,
    OpenUtterance,
    PauseUtterance,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
    UtteranceOptions,
)
from engine.loop import Loop
from engine.metrics import EngineMetrics
from engine.model.dims import ModelDims

COUNTS: Final = (100, 200, 400, 800, 1200)

# How people speak: most stretches are a sentence, few are a word or a story.
MEDIAN_SPEECH_S: Final = 2.5
SPEECH_SPREAD: Final = 0.5  # standard deviation of the logarithm
SHORTEST_S: Final = 0.8  # also of a pause: longer than any endpoint silence in use
LONGEST_S: Final = 12.0
_BEFORE_S: Final = 30.0  # how long before the first sample a session may have begun

# What `stream_server`'s endpointer and gate do with it.
DETECTOR_DELAY: Final = samples_from_ms(64)
PRE_ROLL: Final = samples_from_ms(300)
APPENDED: Final = samples_from_ms(100)
PAUSE_SILENCE: Final = samples_from_ms(200)
ENDPOINT_SILENCE: Final = samples_from_ms(500)

_PATIENCE_S: Final = 3.0  # a final that comes later is one that the engine did not keep up with
_REST_S: Final = 30.0  # between two levels: what the engine's load meter remembers

OPTIONS: Final = UtteranceOptions(language="en")

_ENDPOINT_MS: Final = 1000 * seconds_from_samples(ENDPOINT_SILENCE)
_STEPS: Final = ("EncodeStep", "PrefillStep", "VerifyStep", "DecodeStep")
_DECODER_STEPS: Final = _STEPS[1:]

Audio = NDArray[np.float32]


# Planning: pure.


@dataclass(frozen=True, slots=True)
class Speech:
    """Somebody speaks from `start` to `end`."""

    start: Samples
    end: Samples

    @property
    def finished(self) -> Samples:
        """When the endpoint silence is over and the final is asked for."""
        return Samples(self.end + ENDPOINT_SILENCE)


@dataclass(frozen=True, slots=True)
class Due:
    """A command, and when it is given to the engine."""

    at: Samples
    command: Command


def plan_speech(number: int, seconds: float, *, seed: int = 0) -> list[Speech]:
    """When session `number` speaks: every stretch that begins within `seconds`, in order.

    Pauses are drawn as stretches of speech are, which makes speech of half of the time. The
    session began at a moment of its own before; who was speaking at 0 is not heard, so that of
    many sessions half speak from some four seconds on.
    """
    dice = random.Random(f"{seed}/{number}")
    at = -dice.uniform(0.0, _BEFORE_S)
    speaks = dice.random() < 0.5
    speeches = []
    while at < seconds:
        until = at + _draw_length(dice)
        if speaks and at >= 0.0:
            speeches.append(Speech(samples_from_seconds(at), samples_from_seconds(until)))
        at, speaks = until, not speaks
    return speeches


def _draw_length(dice: random.Random) -> float:
    while True:
        length = dice.lognormvariate(log(MEDIAN_SPEECH_S), SPEECH_SPREAD)
        if SHORTEST_S <= length <= LONGEST_S:
            return length


def plan_commands(
    speech: Speech,
    utterance_id: UtteranceId,
    options: UtteranceOptions,
    read: Callable[[Samples, Samples], Audio],
) -> Iterator[Due]:
    """What the engine is given of `speech`, in order; `read` has the samples from one to another.

    Never audio before it was heard.
    """
    at = Samples(speech.start + DETECTOR_DELAY)
    given = Samples(max(0, speech.start - PRE_ROLL))
    paused = Samples(speech.end + PAUSE_SILENCE)
    yield Due(at, OpenUtterance(utterance_id, given, options))
    while at < paused:
        yield Due(at, AppendAudio(utterance_id, read(given, at)))
        given, at = at, Samples(at + APPENDED)
    yield Due(paused, AppendAudio(utterance_id, read(given, paused)))
    yield Due(paused, PauseUtterance(utterance_id))
    yield Due(speech.finished, FinishUtterance(utterance_id))


# Measuring: the clock's readings are arguments, in seconds.


class VirtualClock:
    """Seconds that go on as `read`'s do, but for those that were skipped."""

    def __init__(self, read: Callable[[], float] = perf_counter) -> None:
        self._read = read
        self.skipped = 0.0

    def __call__(self) -> float:
        """The reading; never goes back."""
        return self._read() + self.skipped

    def skip_to(self, reading: float) -> None:
        """Nothing happens until `reading`."""
        self.skipped += max(0.0, reading - self())


# One for the process: the clock of an engine that is measured again must not go back.
_CLOCK: Final = VirtualClock()


@dataclass(slots=True)
class Heard:
    """One utterance as it was spoken, from `start_s` to `end_s`, and what was shown of it.

    `partials` are (arrival, end of the audio that it covers); `final_s` is when the last final
    arrived.
    """

    start_s: float
    end_s: float
    partials: list[tuple[float, float]] = field(default_factory=list)
    final_s: float | None = None
    failed: bool = False

    def partial_ages(self) -> Iterator[tuple[float, float]]:
        """(reading, age of the newest partial), at its largest: as the next comes, or speech ends.

        As `clients.load_meter` has it, but counted from when the audio was spoken instead of when
        its chunk was sent, which is less.
        """
        newest = self.start_s
        for arrived, covers in self.partials:
            if arrived >= self.end_s:
                break
            yield arrived, arrived - newest
            newest = max(newest, covers)
        yield self.end_s, self.end_s - newest


class Listener:
    """Takes the engine's events. `awaited` are utterances without whose final nobody leaves."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heard: dict[UtteranceId, Heard] = {}
        self._origin_s = 0.0
        self.awaited: set[UtteranceId] = set()

    def listen(
        self, heard: dict[UtteranceId, Heard], awaited: set[UtteranceId], origin_s: float
    ) -> None:
        """Forget all others; the first sample of every session is heard at `origin_s`."""
        self._heard, self.awaited, self._origin_s = heard, awaited, origin_s

    def __call__(self, event: EngineEvent) -> None:
        """An event, as it comes."""
        heard = self._heard.get(event.utterance_id)
        if heard is None:
            return
        match event:
            case HypothesisUpdated(end=end):
                heard.partials.append((self._clock(), self._origin_s + seconds_from_samples(end)))
            case UtteranceFinished():
                heard.final_s = self._clock()
                self.awaited.discard(event.utterance_id)
            case UtteranceFailed():
                heard.failed = True
                self.awaited.discard(event.utterance_id)
            case _:
                pass  # a segment that was closed in the midst of an utterance


@dataclass(frozen=True, slots=True)
class _Figures:
    """What the engine had counted at one reading."""

    at_s: float
    skipped_s: float
    steps: dict[str, tuple[int, int, float]]  # of each kind: steps, rows, seconds
    tokens: int
    drafted: int
    accepted: int

    @classmethod
    def read(cls, metrics: EngineMetrics, clock: VirtualClock) -> "_Figures":
        steps = {kind: (it.count, it.rows, it.seconds) for kind, it in metrics.steps.items()}
        return cls(clock(), clock.skipped, steps, metrics.tokens, metrics.drafted, metrics.accepted)

    def steps_since(self, before: "_Figures", kind: str) -> tuple[int, int, float]:
        """Steps, rows and seconds of one kind."""
        num, rows, seconds = self.steps.get(kind, (0, 0, 0.0))
        num_before, rows_before, seconds_before = before.steps.get(kind, (0, 0, 0.0))
        return num - num_before, rows - rows_before, seconds - seconds_before


@dataclass(frozen=True, slots=True)
class _Timeline:
    """All commands of a level in order, and the utterances that they are of."""

    dues: list[Due]
    speeches: dict[UtteranceId, Speech]


@dataclass(frozen=True, slots=True)
class _Driven:
    """A level as it went.

    `counted` are the utterances whose final was asked for within the window, `missing` those of
    them that had none in the end. `rung` is the highest that the engine was on.
    """

    heard: dict[UtteranceId, Heard]
    counted: set[UtteranceId]
    missing: set[UtteranceId]
    before: _Figures
    after: _Figures
    complete: bool
    rung: int


def measure(
    engine_factory: Callable[[], Engine],
    counts: Sequence[int] = COUNTS,
    seconds: float = 20.0,
    *,
    warm_up_s: float = 5.0,
    wall_cap_s: float = 120.0,
    options: UtteranceOptions = OPTIONS,
    audio: Audio | None = None,
    seed: int = 0,
    rehearse: bool = True,
) -> list[dict[str, Any]]:
    """A row for each number of sessions, all of them from one engine, which is left idle.

    What counts are the finals asked for and the partials shown within `seconds` after a warm-up.
    A level that takes longer than `wall_cap_s`, or whose finals come too late, is given up, and
    `sustained` is "no". The thread is at work while it computes or waits for the device. Tokens
    are those that were chosen: with `append_only` most of a hypothesis is committed text, which
    is forced, so passes per token are more than without. `audio` [n] is what everybody says, over
    and over; without it, noise. Without `rehearse` what a device does only the first time is part
    of the first level's warm-up. The same engine may be measured again.
    """
    listener = Listener(_CLOCK)
    engine = engine_factory()
    driver = _Driver(engine, Loop(engine, listener, _CLOCK), _CLOCK, listener)
    utterance_ids = map(UtteranceId, count())
    read = _reader(random_audio(20 * SAMPLE_RATE, seed=seed) if audio is None else audio)

    def drive(sessions: int, warm_up_s: float, seconds: float) -> _Driven:
        lasts_s = warm_up_s + seconds + _PATIENCE_S
        timeline = _plan_level(sessions, lasts_s, seed, options, utterance_ids, read)
        return driver.drive(timeline, warm_up_s, seconds, wall_cap_s)

    if rehearse:
        drive(counts[0], 0.0, warm_up_s)
    return [
        _row(sessions, drive(sessions, warm_up_s, seconds), engine.metrics) for sessions in counts
    ]


def _plan_level(
    sessions: int,
    seconds: float,
    seed: int,
    options: UtteranceOptions,
    utterance_ids: Iterator[UtteranceId],
    read: Callable[[Samples, Samples], Audio],
) -> _Timeline:
    dues: list[Due] = []
    speeches: dict[UtteranceId, Speech] = {}
    for number in range(sessions):
        for speech in plan_speech(number, seconds, seed=seed):
            utterance_id = next(utterance_ids)
            speeches[utterance_id] = speech
            dues += plan_commands(speech, utterance_id, options, read)
    dues.sort(key=lambda due: due.at)
    return _Timeline(dues, speeches)


def _reader(audio: Audio) -> Callable[[Samples, Samples], Audio]:
    """Views of `audio` repeated without end."""
    longest = PRE_ROLL + DETECTOR_DELAY  # that is read at once
    repeated = np.tile(audio, 1 + -(-longest // len(audio)))

    def read(start: Samples, end: Samples) -> Audio:
        at = start % len(audio)
        return repeated[at : at + end - start]

    return read


class _Driver:
    """Drives the loop through one level after the other."""

    def __init__(self, engine: Engine, loop: Loop, clock: VirtualClock, listener: Listener) -> None:
        self._metrics = engine.metrics
        self._loop = loop
        self._clock = clock
        self._listener = listener

    def drive(
        self, timeline: _Timeline, warm_up_s: float, seconds: float, wall_cap_s: float
    ) -> _Driven:
        """Leaves the engine idle."""
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
        self, timeline: _Timeline, warm_up_s: float, seconds: float, wall_cap_s: float
    ) -> _Driven:
        loop, clock, listener, metrics = self._loop, self._clock, self._listener, self._metrics
        origin_s = clock() + _REST_S
        starts_s = origin_s + warm_up_s
        ends_s = starts_s + seconds
        last_s = ends_s + _PATIENCE_S
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
        before: _Figures | None = None
        after: _Figures | None = None
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
                before = _Figures.read(metrics, clock)
            if after is None and now >= ends_s:
                after = _Figures.read(metrics, clock)
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
        after = after or _Figures.read(metrics, clock)
        counted = {it for it, at in asked_s.items() if starts_s <= at < after.at_s}
        return _Driven(
            heard, counted, counted & listener.awaited, before or after, after, complete, rung
        )


def _row(sessions: int, driven: _Driven, metrics: EngineMetrics) -> dict[str, Any]:
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
    """A row for each figure and a column for each number of sessions: what fits on a page."""
    figures = [name for name in rows[0] if name != "sessions"]
    return [
        {"sessions": name, **{str(row["sessions"]): row[name] for row in rows}} for name in figures
    ]


def main(
    arguments: Sequence[str] | None = None, sizes: Mapping[str, ModelDims] = PUBLISHED
) -> None:
    """Measure a model of one of `sizes` and report, as the command line says."""
    parser = benchmark_parser("engine.bench.sessions", "live sessions, many at once", sizes)
    parser.add_argument(
        "--sessions", type=counts_argument, default=COUNTS, help="default: %(default)s"
    )
    for name, default, what in (
        ("seconds", 20.0, "of audio that count"),
        ("warm-up-s", 5.0, "before them"),
        ("wall-cap-s", 120.0, "after which a level is given up"),
    ):
        parser.add_argument(
            f"--{name}", type=float, default=default, help=f"{what}; default: %(default)s"
        )
    args = parser.parse_args(arguments)
    device = resolve_device(args.device)
    dtype = resolve_dtype(args.dtype, device)
    checkpoint = random_checkpoint(
        args.model,
        device=device,
        dtype=dtype,
        seed=args.seed,
        decoder_layers=args.decoder_layers,
        dims=sizes[args.model],
    )
    config = forced_length_config(**dict(args.settings))
    rows = measure(
        lambda: random_engine(checkpoint, config, device=device, dtype=dtype),
        args.sessions,
        args.seconds,
        warm_up_s=args.warm_up_s,
        wall_cap_s=args.wall_cap_s,
        seed=args.seed,
    )
    facts = environment(checkpoint.name, device.type, str(dtype).removeprefix("torch."))
    settings = {
        "decoder_layers": args.decoder_layers,
        "settings": dict(args.settings),
        "seconds": args.seconds,
        "warm_up_s": args.warm_up_s,
    }
    report("bench sessions", turned(rows), {**facts, **settings})


if __name__ == "__main__":
    main()
