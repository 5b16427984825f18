"""Samples and their targets as tensors of one shape: what a step of training takes."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.audio.units import SAMPLES_PER_POSITION, Samples, samples_from_ms
from training.data.buckets import TOKEN_STEP
from training.data.samples import Sample
from training.data.targets import IGNORED, Target, WordTarget

# Slack around a word's place for its own CTC, in positions of 20 ms: synthesisers tell where a
# word begins to within that.
_WORD_SLACK: Final = 2
_FEWEST_WORD_POSITIONS, _MOST_WORD_POSITIONS = 3, 100
_MOST_WORD_CHARACTERS: Final = 24
_SHORTEST_PIECE: Final = samples_from_ms(20)


class Batch(NamedTuple):
    """One batch. Rows are samples; `audio` is the source samples of all pieces in a row.

    audio [n] int16; pieces [P, 6] float64: row, offset in `audio`, samples, speed, gain, place;
    lengths [rows] samples; inputs, labels, certain [rows, tokens]; spans [rows, tokens, 2]
    positions; characters [rows, most] and their lengths [rows]; words [W, 3] int64: row, first
    and last position; word_characters [W, most] and their lengths [W].
    """

    context: int
    audio: Tensor
    pieces: Tensor
    lengths: Tensor
    inputs: Tensor
    labels: Tensor
    certain: Tensor
    spans: Tensor
    characters: Tensor
    character_lengths: Tensor
    words: Tensor
    word_characters: Tensor
    word_lengths: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on a device; the lengths of CTC stay where the host can read them."""
        for_host = {"context", "character_lengths", "word_lengths"}
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in self._asdict().items()
            if name not in for_host
        }
        return Batch(**self._asdict() | moved)


def make_batch(context: Samples, rows: Sequence[tuple[Sample, Target]], padding: int) -> Batch:
    """Put `rows` into tensors for that context; `padding` is the token behind the last."""
    samples = [sample for sample, _ in rows]
    targets = [target for _, target in rows]
    longest = max(len(target.inputs) for target in targets)
    tokens = -(-longest // TOKEN_STEP) * TOKEN_STEP
    audio, pieces = _gather(samples)
    positions = context // SAMPLES_PER_POSITION
    words = _usable_words(targets, positions)
    return Batch(
        context=context,
        audio=torch.from_numpy(audio),
        pieces=torch.from_numpy(pieces),
        lengths=torch.tensor([sample.length for sample in samples]),
        inputs=_padded([target.inputs for target in targets], tokens, padding),
        labels=_padded([target.labels for target in targets], tokens, IGNORED),
        certain=_padded([target.certain for target in targets], tokens, True),
        spans=torch.stack(
            (
                _padded([[a for a, _ in t.spans] for t in targets], tokens, -1),
                _padded([[b for _, b in t.spans] for t in targets], tokens, -1),
            ),
            dim=-1,
        ),
        characters=_padded([target.characters for target in targets]),
        character_lengths=torch.tensor([len(target.characters) for target in targets]),
        words=torch.tensor([(row, *span) for row, span, _ in words]).reshape(-1, 3),
        word_characters=_padded([codes for *_, codes in words], _MOST_WORD_CHARACTERS),
        word_lengths=torch.tensor([len(codes) for *_, codes in words], dtype=torch.int64),
    )


def _gather(samples: Sequence[Sample]) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """The source samples of all pieces behind each other, and where each of them belongs."""
    parts = [np.zeros(2, np.int16)]  # interpolation reads one sample beyond the last
    table = []
    offset = 0
    for row, sample in enumerate(samples):
        for piece in sample.pieces:
            if piece.length < _SHORTEST_PIECE:
                continue
            parts.insert(-1, piece.source.samples(piece.start, piece.length))
            table.append((row, offset, piece.length, piece.speed, piece.gain, piece.place))
            offset += piece.length
    return np.concatenate(parts), np.array(table, np.float64).reshape(-1, 6)


def _usable_words(
    targets: Sequence[Target], positions: int
) -> list[tuple[int, tuple[int, int], tuple[int, ...]]]:
    """(row, first and last position, characters) of the words whose CTC can be computed."""
    usable = []
    for row, target in enumerate(targets):
        for word in target.words:
            span = _widened(word, positions)
            if (
                _FEWEST_WORD_POSITIONS <= span[1] - span[0] <= _MOST_WORD_POSITIONS
                and len(word.characters) <= _MOST_WORD_CHARACTERS
            ):
                usable.append((row, span, word.characters))
    return usable


def _widened(word: WordTarget, positions: int) -> tuple[int, int]:
    begin, end = word.span
    return max(0, begin - _WORD_SLACK), min(positions, end + _WORD_SLACK)


def _padded(rows: Sequence[Sequence[int]], width: int | None = None, fill: int = 0) -> Tensor:
    """Rows of unequal length as one tensor [rows, width or the longest]; bool stays bool."""
    width = max([1, *map(len, rows)]) if width is None else width
    dtype = torch.bool if isinstance(fill, bool) else torch.int64
    padded = torch.full((len(rows), width), fill, dtype=dtype)
    for row, values in enumerate(rows):
        padded[row, : len(values)] = torch.tensor(values, dtype=dtype)
    return padded
