"""Which sessions exist, and whether one more is taken.

Decides admission by number, which `measured_capacity` works out from what speech costs, and
gives each session its id and its secret token. Leaves what a session does to `session`.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from math import exp
from typing import Final

from engine.audio.units import Samples, samples_from_seconds

TOKEN_BYTES: Final = 16  # 128 bits: not to be guessed

# Of the device's time, for what is promised to every session at the least: its finals, and
# partials at the widest interval. All of it: with more sessions more rows share a step, so the
# measured cost is that of a less loaded device, and too high (docs/log.md).
ADMITTED_UTILISATION: Final = 1.0
LEAST_DUTY: Final = 0.1  # speech per audio: a room that is silent now will not stay so


REMEMBERED_AUDIO: Final = samples_from_seconds(1800)  # everybody's: a minute of thirty people


class SpeechShare:
    """How much of the audio received lately was speech. Touched only by the event loop's thread.

    Lately is counted in audio, so an hour in which nobody is there changes nothing.
    """

    def __init__(self) -> None:
        self._totals = 0, 0  # speech and audio, as told last
        self._speech = 0.0
        self._audio = 0.0

    def update(self, speech: Samples, audio: Samples) -> float:
        """The share, given the totals since the beginning; 0 before any audio."""
        new_speech, new_audio = speech - self._totals[0], audio - self._totals[1]
        self._totals = speech, audio
        if new_audio > 0:
            kept = exp(-new_audio / REMEMBERED_AUDIO)
            counted = (1 - kept) * REMEMBERED_AUDIO  # of a long stretch, only its end
            self._speech = self._speech * kept + counted * new_speech / new_audio
            self._audio = self._audio * kept + counted
        return self._speech / self._audio if self._audio else 0.0


def measured_capacity(s_per_speech_s: float, speech_per_audio: float, num_slots: int) -> int | None:
    """Sessions that the device can serve; None while what speech costs is not known.

    `s_per_speech_s`: device seconds for each second of speech, 0 where unknown. A recording that
    comes faster than in real time costs the same, so it does not shut others out. Whoever speaks
    keeps one of `num_slots`: with more speakers than that, what a slot holds of a window would
    be computed again and again.
    """
    if s_per_speech_s <= 0:
        return None
    duty = max(LEAST_DUTY, speech_per_audio)
    return max(1, int(min(ADMITTED_UTILISATION / s_per_speech_s, num_slots) / duty))


def _new_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


@dataclass(frozen=True, slots=True)
class Admission:
    """A place for one session; `token` is known to its client alone."""

    session_id: str
    token: str


class Registry:
    """The places of this server. Touched only by the event loop's thread.

    `new_token` returns a fresh unguessable string. `capacity`, where one is set, limits what
    `max_sessions` would allow; sessions that are in stay in.
    """

    def __init__(self, max_sessions: int, new_token: Callable[[], str] = _new_token) -> None:
        self.max_sessions = max_sessions
        self.capacity: int | None = None
        self._new_token = new_token
        self._admitted: set[str] = set()
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._admitted)

    def admit(self) -> Admission | None:
        """A place, to be given back with `release`; None where there is none to give."""
        if self.is_closed or len(self._admitted) >= self.places:
            return None
        admission = Admission(session_id=self._new_token(), token=self._new_token())
        self._admitted.add(admission.session_id)
        return admission

    @property
    def places(self) -> int:
        """How many sessions there may be."""
        return self.max_sessions if self.capacity is None else min(self.max_sessions, self.capacity)

    def release(self, admission: Admission) -> None:
        """The session has ended."""
        self._admitted.remove(admission.session_id)

    def close(self) -> None:
        """Admit nobody any more."""
        self.is_closed = True
