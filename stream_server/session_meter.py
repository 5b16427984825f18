"""What one session comes to: how much was heard, what was answered, how late the finals were.

Reads the effects that the session decided, as they are performed, so that the session itself
counts nothing. Pure: readings of the clock are arguments, in seconds.
"""

from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Any, Final

from engine.audio.units import SAMPLE_RATE, Samples, samples_from_seconds, seconds_from_samples
from engine.events import AppendAudio, OpenUtterance
from stream_server import protocol
from stream_server.effects import Close, Effect, Score, Send, Submit
from stream_server.endpointer import VAD_FRAME_SAMPLES
from stream_server.totals import Totals, message_type

# How far behind the newest score speech may be found to have ended: the longest endpoint silence
# that `start` takes, and the VAD frame that completes it.
LOOK_BACK: Final = Samples(5 * SAMPLE_RATE + VAD_FRAME_SAMPLES)
MAX_LATENCIES: Final = 512  # for the median; half an hour of talk


class SessionMeter:
    """The figures of one session, and its share in everybody's. Touched only by its connection.

    A final is timed from the arrival of the last speech in it. One that was cut out of longer
    speech has no such end and is not timed.
    """

    def __init__(self, totals: Totals) -> None:
        self._totals = totals
        self._audio = Samples(0)
        self._speech = Samples(0)
        self._arrivals: deque[tuple[Samples, float]] = deque()  # audio up to here had come then
        self._stops: deque[tuple[float, float]] = deque()  # ends of speech: where, and arrived when
        self._latencies_s: deque[float] = deque(maxlen=MAX_LATENCIES)
        self._max_latency_s = 0.0
        self._utterances = 0
        self._partials = 0
        self._segments = 0
        self._warnings = 0
        self._received_bytes = 0
        self._sent_bytes = 0
        self._language: str | None = None
        self._close: tuple[int, str] | None = None
        self.has_started = False

    def receive(self, num_bytes: int) -> None:
        """A frame came."""
        self._received_bytes += num_bytes
        self._totals.received_bytes += num_bytes

    def send(self, message: protocol.ServerMessage, num_bytes: int) -> None:
        """A message goes out, in a frame of that size."""
        self._sent_bytes += num_bytes
        self._totals.sent_bytes += num_bytes
        self._totals.messages[message_type(type(message))] += 1

    def perform(self, effects: Iterable[Effect], unprocessed: Samples, now: float) -> None:
        """Effects are about to be performed; so much audio then waits to be dealt with."""
        for effect in effects:
            match effect:
                case Score(frames=frames):
                    self._hear(Samples(len(frames) * VAD_FRAME_SAMPLES), unprocessed, now)
                case Submit(command=AppendAudio(samples=samples)):
                    self._speech = Samples(self._speech + len(samples))
                    self._totals.speech = Samples(self._totals.speech + len(samples))
                case Submit(command=OpenUtterance()):
                    self._utterances += 1
                case Send(message=message):
                    self._tell(message, now)
                case Close(code=code, reason=reason):
                    self._close = (code, reason)
                case _:
                    pass

    def leave(self, code: int, reason: str) -> None:
        """The client closed, or is gone; what the server said before it counts more."""
        self._close = self._close or (code, reason or "the client left")

    def figures(self) -> dict[str, Any]:
        """Everything about the session that may be logged: no text, no address, no token."""
        code, reason = self._close or (None, None)
        latencies_s = self._latencies_s
        return {
            "language": self._language,
            "audio_s": round(seconds_from_samples(self._audio), 2),
            "speech_s": round(seconds_from_samples(self._speech), 2),
            "utterances": self._utterances,
            "segments": self._segments,
            "partials": self._partials,
            "final_latency_p50_ms": round(1000 * median(latencies_s)) if latencies_s else None,
            "final_latency_max_ms": round(1000 * self._max_latency_s) if latencies_s else None,
            "received_bytes": self._received_bytes,
            "sent_bytes": self._sent_bytes,
            "warnings": self._warnings,
            "close_code": code,
            "close_reason": reason,
        }

    def _hear(self, samples: Samples, unprocessed: Samples, now: float) -> None:
        self._audio = Samples(self._audio + samples)
        self._totals.audio = Samples(self._totals.audio + samples)
        self._arrivals.append((self._audio, now))
        needed = self._audio - unprocessed - LOOK_BACK
        while self._arrivals[0][0] < needed:
            self._arrivals.popleft()

    def _tell(self, message: protocol.ServerMessage, now: float) -> None:
        match message:
            case protocol.Ready():
                self.has_started = True
            case protocol.SpeechStopped(at=at):
                self._stops.append((at, self._arrived_at(samples_from_seconds(at))))
            case protocol.Partial(end=end):
                self._partials += 1
                self._totals.partial_lag.observe(max(0.0, self._audio / SAMPLE_RATE - end))
            case protocol.Final(start=start, end=end, language=language):
                self._segments += 1
                self._language = language
                self._time_final(start, end, now)
            case protocol.WarningMessage():
                self._warnings += 1
            case protocol.ErrorMessage(code=code):
                self._totals.errors[code] += 1
            case _:
                pass

    def _time_final(self, start: float, end: float, now: float) -> None:
        while self._stops and self._stops[0][0] <= end:
            at, arrived_at = self._stops.popleft()
            if at > start:  # else nothing was understood in that speech, and it has no final
                self._max_latency_s = max(self._max_latency_s, now - arrived_at)
                self._latencies_s.append(now - arrived_at)
                self._totals.final_latency.observe(now - arrived_at)

    def _arrived_at(self, position: Samples) -> float:
        """When the audio up to `position` had come. Speech that ends has been heard."""
        return next((at for end, at in self._arrivals if end >= position), self._arrivals[-1][1])
