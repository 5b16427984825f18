"""What all sessions of one application add up to, as plain numbers; `metrics` exports them."""

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from engine.audio.units import Samples
from engine.metrics import Histogram
from stream_server import protocol

RefusalReason = Literal["unauthorized", "forbidden_origin", "capacity", "draining"]
SessionState = Literal["new", "open", "ending"]  # before `start`, while audio is taken, after it

# Upper bounds in seconds. The endpoint silence, 500 ms unless a client asks otherwise, is part of
# every final's latency: fine steps on both sides of the 500 ms that are promised beyond it.
LATENCY_BOUNDS: Final = (
    0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0,
)  # fmt: skip
# A partial is promised to be less than 2 s old.
LAG_BOUNDS: Final = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


def message_type(kind: type[protocol.ServerMessage]) -> str:
    """The `type` that a message of this class has on the wire."""
    return str(kind.__struct_config__.tag)


_MESSAGE_TYPES: Final = tuple(map(message_type, get_args(protocol.ServerMessage)))


@dataclass(slots=True)
class Totals:
    """Totals since the application was built. Touched only by the event loop's thread.

    What is keyed has every key from the start, so that nothing appears out of nowhere.
    """

    admitted: int = 0
    refused: dict[RefusalReason, int] = field(
        default_factory=lambda: dict.fromkeys(get_args(RefusalReason), 0)
    )
    audio: Samples = Samples(0)  # received, in whole VAD frames
    speech: Samples = Samples(0)  # of it given to the engine, pre-roll and pauses included
    received_bytes: int = 0
    sent_bytes: int = 0
    messages: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_MESSAGE_TYPES, 0))
    errors: dict[protocol.ErrorCode, int] = field(
        default_factory=lambda: dict.fromkeys(get_args(protocol.ErrorCode), 0)
    )
    final_latency: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS))
    partial_lag: Histogram = field(default_factory=lambda: Histogram(LAG_BOUNDS))
