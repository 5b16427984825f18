"""Which sessions exist, and whether one more is taken.

Decides admission by number, which `measured_capacity` works out from what speech costs, and
gives each session its id and its secret token. Leaves what a session does to `session`.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

TOKEN_BYTES: Final = 16  # 128 bits: not to be guessed

# Of the device's time, for what is promised to every session at the least: its finals, and
# partials at the widest interval. All of it: with more sessions more rows share a step, so the
# measured cost is that of a less loaded device, and too high (docs/log.md).
ADMITTED_UTILISATION: Final = 1.0
LEAST_DUTY: Final = 0.1  # speech per audio: a room that is silent now will not stay so


def measured_capacity(s_per_speech_s: float, speech_per_audio: float) -> int | None:
    """Sessions that the device can serve; None while what speech costs is not known.

    `s_per_speech_s`: device seconds for each second of speech, 0 where unknown. A recording that
    comes faster than in real time costs the same, so it does not shut others out.
    """
    if s_per_speech_s <= 0:
        return None
    duty = max(LEAST_DUTY, speech_per_audio)
    return max(1, int(ADMITTED_UTILISATION / (s_per_speech_s * duty)))


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
