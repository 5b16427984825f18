"""Who of a load test says what, and when. All of it follows from the settings and their seed.

Decides starts, subprotocols, the clips and pauses of every session and the sizes of its chunks;
leaves audio to `load_clips` and clocks to `load_session`. Positions count 16 kHz samples, times
are seconds of audio: at `--speed 4` a planned second takes a quarter of a real one.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final, Literal

SAMPLE_RATE: Final = 16_000
MIN_CHUNK_SAMPLES: Final = SAMPLE_RATE * 10 // 1000  # a WebRTC frame ...
MAX_CHUNK_SAMPLES: Final = SAMPLE_RATE * 100 // 1000  # ... to what slow recorders deliver
GAP_JITTER: Final = 0.5  # a pause is as long as the duty asks, give or take half of it

Kind = Literal["speech", "silence", "noise"]


class PlanError(Exception):
    """Settings that describe no load; the message names the one, what it was and what it takes."""


@dataclass(frozen=True, slots=True)
class LoadShape:
    """What a load is asked to be. Raises PlanError.

    Sessions join one after the other and all of them speak to one common end, so that the
    `seconds` that count are spent with every session open.
    """

    sessions: int
    seconds: float  # that count, after everybody has joined and warmed up
    warm_up_s: float = 0.0
    starts_per_s: float = 50.0  # people do not all arrive at one moment; connecting is a load too
    duty: float = 0.5  # share of the time in which a clip is heard
    noise_share: float = 0.0  # of the sessions, who hear `noise_kind` and no clip
    noise_kind: Kind = "silence"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, value, accepted, holds in (
            ("sessions", self.sessions, "1 or more", self.sessions >= 1),
            ("seconds", self.seconds, "more than 0", self.seconds > 0),
            ("warm-up-s", self.warm_up_s, "0 or more", self.warm_up_s >= 0),
            ("starts-per-s", self.starts_per_s, "more than 0", self.starts_per_s > 0),
            ("duty", self.duty, "more than 0, at most 1", 0 < self.duty <= 1),
            ("noise-share", self.noise_share, "0 to 1", 0 <= self.noise_share <= 1),
        ):
            if not holds:
                raise PlanError(f"{name}: got {value}, takes {accepted}")

    @property
    def counts_from_s(self) -> float:
        """When everybody has joined and warmed up, counted from the beginning."""
        return self.sessions / self.starts_per_s + self.warm_up_s

    @property
    def ends_at_s(self) -> float:
        """When everybody stops."""
        return self.counts_from_s + self.seconds


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a session's audio: of a clip, or of the background where `clip` is None."""

    clip: int | None
    offset: int  # samples into the clip or the background, which is read round and round
    length: int  # samples


@dataclass(frozen=True, slots=True)
class Span:
    """Where in a session a clip is heard, seconds of its audio."""

    clip: int
    start_s: float
    end_s: float
    whole: bool  # from its first sample to its last


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """Everything that one simulated session does."""

    number: int
    kind: Kind
    msgpack: bool
    starts_at_s: float
    parts: tuple[Part, ...]
    chunk_seed: str

    @property
    def samples(self) -> int:
        """Length of its audio."""
        return sum(part.length for part in self.parts)

    def spans(self, clip_samples: Sequence[int]) -> list[Span]:
        """The clips it hears, given how long each clip is."""
        found, at = [], 0
        for part in self.parts:
            end = at + part.length
            if part.clip is not None:
                whole = part.length == clip_samples[part.clip]
                found.append(Span(part.clip, at / SAMPLE_RATE, end / SAMPLE_RATE, whole))
            at = end
        return found

    def chunk_lengths(self) -> Iterator[int]:
        """Samples per message, without end."""
        dice = random.Random(self.chunk_seed)
        while True:
            yield dice.randint(MIN_CHUNK_SAMPLES, MAX_CHUNK_SAMPLES)


def plan_session(
    shape: LoadShape, number: int, clip_samples: Sequence[int], background_samples: int
) -> SessionPlan:
    """The plan of session `number` of a load. Raises PlanError where there is no clip to say.

    Sessions of noise are spread evenly among the others; every second one of each kind speaks
    MessagePack.
    """
    dice = random.Random(f"{shape.seed}/{number}")
    starts_at_s = (number + dice.random()) / shape.starts_per_s
    samples = round((shape.ends_at_s - starts_at_s) * SAMPLE_RATE)
    noisy_before = int(number * shape.noise_share)
    noisy = int((number + 1) * shape.noise_share) > noisy_before
    parts: Iterator[Part]
    if noisy:
        parts = iter([Part(None, dice.randrange(background_samples), samples)])
    else:
        parts = _clips_and_pauses(dice, shape.duty, clip_samples, background_samples)
    return SessionPlan(
        number=number,
        kind=shape.noise_kind if noisy else "speech",
        msgpack=(noisy_before if noisy else number - noisy_before) % 2 == 1,
        starts_at_s=starts_at_s,
        parts=tuple(_first_samples(parts, samples)),
        chunk_seed=f"{shape.seed}/{number}/chunks",
    )


def plan_load(
    shape: LoadShape, clip_samples: Sequence[int], background_samples: int
) -> list[SessionPlan]:
    """The plans of all sessions. Raises PlanError."""
    return [
        plan_session(shape, number, clip_samples, background_samples)
        for number in range(shape.sessions)
    ]


def _clips_and_pauses(
    dice: random.Random, duty: float, clip_samples: Sequence[int], background_samples: int
) -> Iterator[Part]:
    """Clips in an order of its own, a pause behind each, without end.

    It begins anywhere in the first clip and its pause: a load that began with everybody's first
    word would speak in unison.
    """
    if not any(clip_samples):
        raise PlanError("clips: got none that has a sample, takes at least one")
    order = dice.sample(range(len(clip_samples)), len(clip_samples))
    skip: int | None = None
    for clip in cycle(order):
        spoken = clip_samples[clip]
        jitter = dice.uniform(1 - GAP_JITTER, 1 + GAP_JITTER)
        pause = round(spoken * (1 - duty) / duty * jitter)
        if skip is None:
            skip = dice.randrange(max(spoken + pause, 1))
        for part in (
            Part(clip, 0, spoken),
            Part(None, dice.randrange(background_samples), pause),
        ):
            if skip < part.length:
                yield Part(part.clip, part.offset + skip, part.length - skip)
            skip = max(skip - part.length, 0)


def _first_samples(parts: Iterator[Part], samples: int) -> Iterator[Part]:
    while samples > 0:
        part = next(parts)
        yield Part(part.clip, part.offset, min(part.length, samples))
        samples -= part.length
