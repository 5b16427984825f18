"""How long after the end of speech a final arrives, as the client sees it.

Pure: the clock's readings are arguments, in seconds; positions are seconds of session audio.
"""

from bisect import bisect_left
from statistics import median

from stream_server.protocol import Final, ServerMessage, SpeechStopped

END_TOLERANCE_S = 0.05  # a final's end and its speech_stopped may differ by rounding


class LatencyMeter:
    """Remembers when each stretch of audio was sent, and times the finals of ended speech.

    A final is timed from the sending of the last speech in it. One that was cut out of longer
    speech, or flushed in its middle, has no such end and is not timed.
    """

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self._sent_s: list[float] = []  # audio up to here ...
        self._sent_at: list[float] = []  # ... had been sent at this reading
        self._stops_s: list[float] = []  # ends of speech whose final is still to come

    def sent(self, audio_s: float, now: float) -> None:
        """The audio up to `audio_s` has been handed to the connection."""
        self._sent_s.append(audio_s)
        self._sent_at.append(now)

    def received(self, message: ServerMessage, now: float) -> None:
        """A message has arrived."""
        match message:
            case SpeechStopped(at=at):
                self._stops_s.append(at)
            case Final(start=start, end=end):
                for at in self._stops_s:
                    if start < at <= end + END_TOLERANCE_S:
                        self._stops_s.remove(at)
                        self.latencies_s.append(now - self.when_sent(at))
                        break
            case _:
                pass

    @property
    def median_s(self) -> float | None:
        """Over the finals timed so far; None before the first."""
        return median(self.latencies_s) if self.latencies_s else None

    def when_sent(self, audio_s: float) -> float:
        """The reading at which the audio up to `audio_s` was handed over, as far as there is any.

        Raises IndexError where nothing has been sent.
        """
        index = bisect_left(self._sent_s, audio_s)
        return self._sent_at[min(index, len(self._sent_at) - 1)]
