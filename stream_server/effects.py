"""What a session asks its connection to do: values, performed in order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.events import Command
from stream_server.protocol import ServerMessage


@dataclass(frozen=True, slots=True)
class Send:
    """Put a message into the outbox."""

    message: ServerMessage


@dataclass(frozen=True, slots=True)
class Score:
    """Have the next VAD frames scored: float32 [n, VAD_FRAME_SAMPLES]."""

    frames: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Submit:
    """Give the engine a command."""

    command: Command


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection after everything sent before."""

    code: int
    reason: str


Effect = Send | Score | Submit | Close
