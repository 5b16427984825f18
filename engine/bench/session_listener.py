"""What simulated sessions hear of the engine, and when."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from engine.audio.units import seconds_from_samples
from engine.events import (
    EngineEvent,
    HypothesisUpdated,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
)


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
