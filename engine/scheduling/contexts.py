"""Encoder contexts: the one place that decides how much of 30 s an encode covers.

`full` is Whisper as it was trained. `trimmed` is the audio and a margin, rounded up to a
bucket: few shapes to warm up or capture, and rows of like length share a batch. A row's context
depends on its own length alone, never on its neighbours. `incremental` serves partials of a
growing window: only new positions and a look-back are computed, against the keys and values kept
of those before. An approximation, since what was computed earlier does not learn of what came
later, nor of a louder maximum.
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


_LEAST_START: Final = 2  # the encoder's convolutions look so far to the left
# Audio of one interval, look-back and margin fit into these; beyond the last, all is encoded.
EXTENSION_BUCKETS: Final = tuple(Positions(size) for size in (64, 96, 128, 192, 256))


@dataclass(frozen=True, slots=True)
class Encoding:
    """Encode `width` positions from `start` on; what lies before them is kept from earlier."""

    start: Positions
    width: Positions

    @property
    def context(self) -> Positions:
        """Positions that the window then has."""
        return Positions(self.start + self.width)


@dataclass(frozen=True, slots=True)
class ContextPolicy:
    """How one checkpoint's windows are encoded.

    `trained_trimmed`: it was trained with contexts cut to the audio, so finals use them too and
    the margin is small. Other checkpoints get the whole 30 s for finals. `look_back` positions
    are encoded again with every extension; None: windows are not extended.
    """

    default: Context
    trained_trimmed: bool
    margin: Positions
    look_back: Positions | None = None

    @classmethod
    def of(cls, config: EngineConfig, *, trained_trimmed: bool) -> "ContextPolicy":
        """The policy of a checkpoint under `config`."""
        margin = config.trained_context_margin if trained_trimmed else config.context_margin
        look_back = config.look_back if config.partial_context == "incremental" else None
        return cls(config.context, trained_trimmed, margin, look_back)

    def is_trimmed(self, requested: Context, *, final: bool) -> bool:
        """Whether a partial or a final that asks for `requested` is encoded trimmed."""
        context = self.default if requested == "auto" else requested
        if context == "auto":
            return self.trained_trimmed or not final
        return context == "trimmed"

    def encoding(self, num_samples: int, *, trimmed: bool, kept: Positions) -> Encoding:
        """What to encode of a window of `num_samples` whose first `kept` positions were kept.

        0 where nothing was, or where it is not to be used.
        """
        context = self.positions(num_samples, trimmed=trimmed)
        if self.look_back is not None and trimmed and kept >= self.look_back + _LEAST_START:
            start = Positions(kept - self.look_back)
            needed = positions_covering(num_samples) + self.margin - start
            width = next((size for size in EXTENSION_BUCKETS if size >= needed), None)
            if width is not None and width < context:
                # At the end of 30 s it reaches further back instead of beyond them.
                return Encoding(Positions(min(start, MAX_WINDOW_POSITIONS - width)), width)
        return Encoding(Positions(0), context)

    def positions(self, num_samples: int, *, trimmed: bool) -> Positions:
        """Encoder positions for a window of `num_samples`."""
        if not trimmed:
            return MAX_WINDOW_POSITIONS
        needed = positions_covering(num_samples) + self.margin
        return next((size for size in CONTEXT_BUCKETS if size >= needed), MAX_WINDOW_POSITIONS)
