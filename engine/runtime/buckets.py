"""Shapes for which CUDA graphs are captured, and which of them a step is padded to.

A graph is a fixed shape. Too few, and steps compute mostly padding; too many, and capturing
takes minutes and memory. Pure: which shapes there are is decided here, capturing is
`graphs`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from engine.audio.units import MAX_WINDOW_POSITIONS
from engine.scheduling.contexts import CONTEXT_BUCKETS, EXTENSION_BUCKETS

# Of tokens: padding costs at most a third beyond sixteen rows; below, one more is nearly free.
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
# Of windows no row is free, for one alone is bound by arithmetic: at most a third anywhere.
ENCODE_BATCH_BUCKETS: Final = tuple(sorted({*BATCH_BUCKETS, 3, 6, 12}))
# What one row of a feed holds: forced tokens and a draft. Beyond the last, prompts: eager.
WIDTH_BUCKETS: Final = (8, 16, 32, 64)
_WIDTH_STEP: Final = 32  # beyond: each width is a shape that kernels may be compiled for
# How far cross-attention may reach: a trimmed sentence, a long one, 30 s.
REACH_BUCKETS: Final = (256, 512, MAX_WINDOW_POSITIONS)
# Beyond so much work a step is bound by arithmetic, and what launches cost no longer shows.
MOST_FED_TOKENS: Final = 2048
MOST_ENCODED_POSITIONS: Final = 8192


@dataclass(frozen=True, slots=True, order=True)
class DecodeShape:
    """`rows` rows of one token whose windows have at most `reach` positions."""

    rows: int
    reach: int

    @property
    def work(self) -> int:
        """What orders captures: the largest first, so that the others fit into its memory."""
        return self.rows


@dataclass(frozen=True, slots=True, order=True)
class FeedShape:
    """`rows` rows of `width` tokens, of which the last `outs` may be chosen behind."""

    rows: int
    width: int
    outs: int
    reach: int

    @property
    def work(self) -> int:
        """What orders captures."""
        return self.rows * self.width


@dataclass(frozen=True, slots=True, order=True)
class EncodeShape:
    """`rows` windows of `context` positions; `keep`: with the encoder's own keys and values."""

    rows: int
    context: int
    keep: bool = False

    @property
    def work(self) -> int:
        """What orders captures."""
        return self.rows * self.context


@dataclass(frozen=True, slots=True, order=True)
class ExtendShape:
    """`width` positions of each of `rows` windows."""

    rows: int
    width: int

    @property
    def work(self) -> int:
        """What orders captures."""
        return self.rows * self.width


Shape = DecodeShape | FeedShape | EncodeShape | ExtendShape


def fit(count: int, buckets: Sequence[int]) -> int:
    """The least bucket that holds `count`; `count` itself beyond the last."""
    return next((bucket for bucket in buckets if bucket >= count), count)


def decode_shape(rows: int, context: int) -> DecodeShape:
    """What a decode step of `rows` rows, none with more than `context` positions, is padded to."""
    return DecodeShape(fit(rows, BATCH_BUCKETS), fit(context, REACH_BUCKETS))


def feed_shape(rows: int, tokens: int, draft: int, context: int) -> FeedShape:
    """The same for a prefill (`draft` 0) or a verification of at most `tokens` and `draft`."""
    width = fit(tokens, WIDTH_BUCKETS)
    if width > WIDTH_BUCKETS[-1]:
        width = -(-width // _WIDTH_STEP) * _WIDTH_STEP
    outs = 1 if draft == 0 else width
    return FeedShape(fit(rows, BATCH_BUCKETS), width, outs, fit(context, REACH_BUCKETS))


def encode_shape(rows: int, context: int, *, keep: bool = False) -> EncodeShape:
    """The same for an encode; contexts are buckets already."""
    return EncodeShape(fit(rows, ENCODE_BATCH_BUCKETS), context, keep)


def extend_shape(rows: int, width: int) -> ExtendShape:
    """The same for an extension; widths are buckets already."""
    return ExtendShape(fit(rows, ENCODE_BATCH_BUCKETS), width)


def shapes_to_capture(max_batch: int, *, extends: bool = False) -> list[Shape]:
    """Every shape worth a graph for steps of at most `max_batch` rows, the largest first.

    With `extends` windows are extended: what is encoded trimmed is then kept.
    """
    most = fit(max_batch, BATCH_BUCKETS)
    batches = [rows for rows in BATCH_BUCKETS if rows <= most]
    windows = [rows for rows in ENCODE_BATCH_BUCKETS if rows <= most]
    decodes: list[Shape] = [DecodeShape(rows, reach) for rows in batches for reach in REACH_BUCKETS]
    feeds: list[Shape] = [
        FeedShape(rows, width, outs, reach)
        for rows in batches
        for reach in REACH_BUCKETS
        for width in WIDTH_BUCKETS
        for outs in ((1, width) if width == WIDTH_BUCKETS[0] else (width,))
        if rows * width <= MOST_FED_TOKENS
    ]
    encodes: list[Shape] = [
        EncodeShape(rows, context, keep)
        for rows in windows
        for context in CONTEXT_BUCKETS
        if rows * context <= MOST_ENCODED_POSITIONS
        for keep in ((False, True) if extends else (False,))
    ]
    extensions: list[Shape] = [
        ExtendShape(rows, width)
        for rows in windows
        for width in EXTENSION_BUCKETS
        if extends and rows * width <= MOST_ENCODED_POSITIONS
    ]
    return [
        shape
        for kind in (encodes, extensions, feeds, decodes)
        for shape in sorted(kind, key=lambda it: (it.work, it), reverse=True)
    ]
