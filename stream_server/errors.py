"""Why a session ends early: one type per row of the protocol's error table.

Each carries its wire code, its close code and a sentence for the person at the other end.
Every one of them is fatal to its own session and to no other.
"""

from typing import ClassVar

from stream_server import protocol


class SessionError(Exception):
    """Base of everything that ends a session early. The argument is the public sentence."""

    code: ClassVar[protocol.ErrorCode]
    close_code: int

    def to_message(self) -> protocol.ErrorMessage:
        """The `error` that announces the close."""
        return protocol.ErrorMessage(code=self.code, message=str(self), fatal=True)


class BadMessageError(SessionError):
    """A frame that is not a message, or a field out of its range."""

    code = "bad_message"

    def __init__(self, sentence: str, close_code: int = protocol.CLOSE_POLICY) -> None:
        super().__init__(sentence)
        self.close_code = close_code


class UnsupportedError(SessionError):
    """Something well-formed that this server or model does not have."""

    code = "unsupported"
    close_code = protocol.CLOSE_POLICY


class NotStartedError(SessionError):
    """A message before `start`."""

    code = "not_started"
    close_code = protocol.CLOSE_POLICY


class AlreadyStartedError(SessionError):
    """A second `start`."""

    code = "already_started"
    close_code = protocol.CLOSE_POLICY


class MessageTooLargeError(SessionError):
    """A frame over a limit."""

    code = "message_too_large"
    close_code = protocol.CLOSE_TOO_LARGE


class IdleTimeoutError(SessionError):
    """Neither audio nor message for the idle limit."""

    code = "idle_timeout"
    close_code = protocol.CLOSE_POLICY


class EngineFailureError(SessionError):
    """The engine could not decode, or contradicted itself."""

    code = "engine_failure"
    close_code = protocol.CLOSE_FAILURE


class ShuttingDownError(SessionError):
    """The server is going away."""

    code = "shutting_down"
    close_code = protocol.CLOSE_RESTART
