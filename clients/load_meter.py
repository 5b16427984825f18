"""What one simulated session measures of its server.

Pure: the clock's readings are arguments, in seconds; positions are seconds of session audio.
Audio counts as sent when it was due, not when a busy generator or a server that had stopped
reading let it go: that delay too is one that a speaker would see.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

from clients.latency import LatencyMeter
from stream_server.protocol import (
    Done,
    ErrorMessage,
    Partial,
    ServerMessage,
    SpeechStarted,
    SpeechStopped,
    WarningMessage,
)
from stream_server.protocol import Final as FinalMessage

METRICS: Final = {
    "connect_s": "dialling → ready",
    "first_partial_s": "start of speech → first partial",
    "partial_lag_s": "audio sent beyond a new partial's end",
    "partial_age_s": "age of the newest partial while somebody speaks",
    "partial_gap_s": "between partials of a segment",
    "final_s": "end of speech → final",
    "final_beyond_endpoint_s": "end of speech → final, less the endpoint silence",
    "stop_to_done_s": "stop → done",
}

Outcome = Literal["done", "failed", "refused"]


@dataclass(frozen=True, slots=True)
class HeardText:
    """A final: seconds of session audio, and what was heard there."""

    start_s: float
    end_s: float
    text: str


@dataclass(slots=True)
class SessionRecord:
    """Everything measured of one session. Samples are (reading, value) pairs."""

    number: int
    outcome: Outcome = "failed"
    failure: str | None = None  # an error's code, or the HTTP status of a refusal
    sentence: str | None = None  # that says more
    retry_after_s: int | None = None
    samples: dict[str, list[tuple[float, float]]] = field(
        default_factory=lambda: {metric: [] for metric in METRICS}
    )
    heard: list[HeardText] = field(default_factory=list)
    partials: int = 0
    partial_words: int = 0
    changed_words: int = 0  # of them, which a later text of their segment did not keep
    retractions: int = 0
    missing_finals: int = 0  # that `done` counted and nobody saw
    warnings: Counter[str] = field(default_factory=Counter)
    slowest_interval_ms: int | None = None  # that a warning announced
    audio_s: float = 0.0  # sent
    speech_s: float = 0.0  # as the server heard it


@dataclass(slots=True)
class _Speech:
    """Speech that has begun, and the partials of it until it ends."""

    at_s: float
    has_partial: bool = False
    ended: bool = False
    shown: list[tuple[float, float]] = field(default_factory=list)  # (arrival, newest audio sent)


@dataclass(slots=True)
class _Segment:
    """The open segment's partials so far, word by word."""

    number: int
    stable_text: str = ""
    revisions: list[list[str]] = field(default_factory=list)
    arrived: float | None = None  # the newest


class SessionMeter:
    """Watches one session, from `connected` to `done`, or to `failed` or `refused`."""

    def __init__(self, number: int, *, endpoint_silence_s: float, speed: float = 1.0) -> None:
        self.record = SessionRecord(number)
        self._endpoint_silence_s = endpoint_silence_s
        self._speed = speed
        self._latency = LatencyMeter()
        self._speeches: list[_Speech] = []
        self._segment: _Segment | None = None
        self._num_segments = 0  # that have had their final
        self._stopped: float | None = None

    def connected(self, dialled: float, now: float) -> None:
        """The session is open."""
        self._sample("connect_s", now, now - dialled)

    def refused(self, status: int, retry_after_s: int | None) -> None:
        """The server answered the upgrade with an HTTP status."""
        self.record.outcome, self.record.failure = "refused", f"HTTP {status}"
        self.record.retry_after_s = retry_after_s

    def failed(self, code: str, sentence: str) -> None:
        """The session ended otherwise than by `done`; speech that was going on ends with it."""
        self.record.outcome, self.record.failure = "failed", code
        self.record.sentence = sentence
        if self._speeches and not self._speeches[-1].ended:
            last = self._latency.when_sent(self.record.audio_s)
            self._end_speech(self._speeches[-1], last)

    def sent(self, audio_s: float, due: float) -> None:
        """The audio up to `audio_s` was due at `due`, and has been sent."""
        self.record.audio_s = audio_s
        self._latency.sent(audio_s, due)

    def stopped(self, now: float) -> None:
        """`stop` is being sent."""
        self._stopped = now

    def received(self, message: ServerMessage, now: float) -> None:
        """A message has arrived."""
        match message:
            case SpeechStarted(at=at):
                self._speeches.append(_Speech(at))
            case SpeechStopped():
                self._receive_stopped(message, now)
            case Partial():
                self._receive_partial(message, now)
            case FinalMessage():
                self._receive_final(message, now)
            case WarningMessage(code=code, interim_interval_ms=interval_ms):
                self.record.warnings[code] += 1
                self.record.slowest_interval_ms = max(
                    interval_ms, self.record.slowest_interval_ms or 0
                )
            case ErrorMessage(code=code):
                self.record.warnings[code] += 1  # a fatal one ends the session as `failed`
            case Done(segments=segments):
                self.record.outcome = "done"
                self.record.missing_finals = segments - len(self.record.heard)
                if self._stopped is not None:
                    self._sample("stop_to_done_s", now, now - self._stopped)
            case _:
                pass

    def _receive_stopped(self, message: SpeechStopped, now: float) -> None:
        # Speech that `stop` cut off was not ended by silence: its final is timed by stop → done.
        if message.at + self._endpoint_silence_s <= self.record.audio_s:
            self._latency.received(message, now)
        if self._speeches and not self._speeches[-1].ended:
            speech = self._speeches[-1]
            self.record.speech_s += message.at - speech.at_s
            self._end_speech(speech, self._latency.when_sent(message.at))

    def _receive_partial(self, message: Partial, now: float) -> None:
        record = self.record
        record.partials += 1
        self._sample("partial_lag_s", now, record.audio_s - message.end)
        speech = self._speech_of(message.end)
        if speech is not None:
            if not speech.has_partial:
                speech.has_partial = True
                began = self._latency.when_sent(speech.at_s)
                self._sample("first_partial_s", now, now - began)
            if not speech.ended:
                speech.shown.append((now, self._latency.when_sent(message.end)))
        if self._segment is None or self._segment.number != message.segment:
            self._segment = _Segment(message.segment)
        segment = self._segment
        if segment.arrived is not None:
            self._sample("partial_gap_s", now, now - segment.arrived)
        segment.arrived = now
        segment.revisions.append(message.text.split())
        record.retractions += (
            message.segment < self._num_segments
            or not message.stable_text.startswith(segment.stable_text)
            or not message.text.startswith(message.stable_text)
        )
        segment.stable_text = message.stable_text

    def _receive_final(self, message: FinalMessage, now: float) -> None:
        record = self.record
        num_timed = len(self._latency.latencies_s)
        self._latency.received(message, now)
        for latency_s in self._latency.latencies_s[num_timed:]:
            self._sample("final_s", now, latency_s)
            silence_s = self._endpoint_silence_s / self._speed
            self._sample("final_beyond_endpoint_s", now, latency_s - silence_s)
        record.heard.append(HeardText(message.start, message.end, message.text))
        record.retractions += message.segment < self._num_segments
        self._num_segments = message.segment + 1
        segment, self._segment = self._segment, None
        if segment is not None and segment.number == message.segment:
            record.retractions += not message.text.startswith(segment.stable_text)
            record.partial_words += sum(len(words) for words in segment.revisions)
            record.changed_words += changed_words(segment.revisions, message.text.split())

    def _end_speech(self, speech: _Speech, end: float) -> None:
        """Age of the newest partial, at its largest: as the next arrives, or as speech ends."""
        newest = self._latency.when_sent(speech.at_s)
        for arrived, covers in speech.shown:
            until = min(arrived, end)
            self._sample("partial_age_s", until, until - newest)
            if arrived >= end:
                break
            newest = max(newest, covers)
        else:
            self._sample("partial_age_s", end, end - newest)
        speech.ended = True
        speech.shown.clear()

    def _speech_of(self, end_s: float) -> _Speech | None:
        """The speech that a text ending at `end_s` is of: the last that had begun by then."""
        index = bisect_left(self._speeches, end_s, key=lambda speech: speech.at_s)
        return self._speeches[index - 1] if index else None

    def _sample(self, metric: str, now: float, value: float) -> None:
        self.record.samples[metric].append((now, value))


def changed_words(revisions: list[list[str]], final: list[str]) -> int:
    """How many words of a segment's successive texts some later text did not keep in place."""
    changed, kept, later = 0, len(final), final
    for words in reversed(revisions):
        common = next(
            (n for n, (one, other) in enumerate(zip(words, later, strict=False)) if one != other),
            min(len(words), len(later)),
        )
        kept, later = min(common, kept), words
        changed += len(words) - kept
    return changed
