"""One spoken sentence: its samples, and where each of its words ends."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import HOP_SAMPLES, samples_from_ms

# Silence kept around the speech; what a session's pre-roll and endpointer leave is added when
# samples are mixed.
_MARGIN: Final = samples_from_ms(50)
_PEAK: Final = 20_000
_QUIET: Final = 0.012  # of the loudest hop
_FEWEST_HOPS: Final = 5
_FAINTEST: Final = 100.0


@dataclass(frozen=True, slots=True)
class Clip:
    """`samples` [n] int16 at 16 kHz; `word_ends` in samples, one per word between spaces.

    `word_ends` is None where the synthesiser does not tell them for every word.
    """

    samples: NDArray[np.int16]
    word_ends: tuple[int, ...] | None


def trimmed(clip: Clip) -> Clip | None:
    """`clip` with the same peak as all and little silence around it; None if it is all silence."""
    hops = len(clip.samples) // HOP_SAMPLES
    if hops < _FEWEST_HOPS:
        return None
    framed = clip.samples[: hops * HOP_SAMPLES].astype(np.float32).reshape(hops, HOP_SAMPLES)
    loudness = np.sqrt(np.square(framed).mean(axis=1))
    if loudness.max() < _FAINTEST:
        return None
    loud = np.flatnonzero(loudness > _QUIET * loudness.max())
    begin = max(0, int(loud[0]) * HOP_SAMPLES - _MARGIN)
    end = min(len(clip.samples), (int(loud[-1]) + 1) * HOP_SAMPLES + _MARGIN)
    kept = clip.samples[begin:end].astype(np.float32)
    scaled = (kept * (_PEAK / np.abs(kept).max())).astype(np.int16)
    if clip.word_ends is None:
        return Clip(scaled, None)
    ends = tuple(min(max(at - begin, 0), end - begin) for at in clip.word_ends)
    return Clip(scaled, ends)
