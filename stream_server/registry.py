"""Which sessions exist, and whether one more is taken.

Decides admission by number and gives each session its id and its secret token. Leaves what a
session does to `session`.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

TOKEN_BYTES: Final = 16  # 128 bits: not to be guessed


def _new_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


@dataclass(frozen=True, slots=True)
class Admission:
    """A place for one session; `token` is known to its client alone."""

    session_id: str
    token: str


class Registry:
    """The places of this server. Touched only by the event loop's thread.

    `new_token` returns a fresh unguessable string.
    """

    def __init__(self, max_sessions: int, new_token: Callable[[], str] = _new_token) -> None:
        self.max_sessions = max_sessions
        self._new_token = new_token
        self._admitted: set[str] = set()
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._admitted)

    def admit(self) -> Admission | None:
        """A place, to be given back with `release`; None where there is none to give."""
        if self.is_closed or len(self._admitted) >= self.max_sessions:
            return None
        admission = Admission(session_id=self._new_token(), token=self._new_token())
        self._admitted.add(admission.session_id)
        return admission

    def release(self, admission: Admission) -> None:
        """The session has ended."""
        self._admitted.remove(admission.session_id)

    def close(self) -> None:
        """Admit nobody any more."""
        self.is_closed = True
