"""Encoder contexts: the one place that decides how much of 30 s an encode covers.

`full` is Whisper as it was trained. `trimmed` is the audio and a margin, rounded up to a
bucket: few shapes to warm up or capture, and rows of like length share a batch. A row's context
depends on its own length alone, never on its neighbours.
"""

from dataclasses import dataclass
from typing import Final

from engine.audio.units import MAX_WINDOW_POSITIONS, Positions, positions_covering
from engine.config import EngineConfig
from engine.events import Context

# Steps of about an eighth: what is encoded for nothing but rounding stays small.
CONTEXT_BUCKETS: Final = (
    *(
        Positions(size)
        for size in (64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280)
    ),
    MAX_WINDOW_POSITIONS,
)


@dataclass(frozen=True, slots=True)
class ContextPolicy:
    """How one checkpoint's windows are encoded.

    `trained_trimmed`: it was trained with contexts cut to the audio, so finals use them too and
    the margin is small. Other checkpoints get the whole 30 s for finals.
    """

    default: Context
    trained_trimmed: bool
    margin: Positions

    @classmethod
    def of(cls, config: EngineConfig, *, trained_trimmed: bool) -> "ContextPolicy":
        """The policy of a checkpoint under `config`."""
        margin = config.trained_context_margin if trained_trimmed else config.context_margin
        return cls(config.context, trained_trimmed, margin)

    def is_trimmed(self, requested: Context, *, final: bool) -> bool:
        """Whether a partial or a final that asks for `requested` is encoded trimmed."""
        context = self.default if requested == "auto" else requested
        if context == "auto":
            return self.trained_trimmed or not final
        return context == "trimmed"

    def positions(self, num_samples: int, *, trimmed: bool) -> Positions:
        """Encoder positions for a window of `num_samples`."""
        if not trimmed:
            return MAX_WINDOW_POSITIONS
        needed = positions_covering(num_samples) + self.margin
        return next((size for size in CONTEXT_BUCKETS if size >= needed), MAX_WINDOW_POSITIONS)
