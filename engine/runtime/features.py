"""Audio and log-mel frames of every slot, kept on the device.

The host sends samples once, as they come; frames that are final are computed once. The
arithmetic is `engine.kernels.log_mel`'s or its plain twin's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.audio.units import MAX_WINDOW_FRAMES, MAX_WINDOW_SAMPLES
from engine.kernels.plain_log_mel import (
    MAX_BLOCKS,
    MelTables,
    num_blocks,
    num_final_blocks,
)
from engine.model.mel import mel_filters
from engine.model.staging import to_device
from engine.scheduling.steps import EncodeRow, ExtendRow


@dataclass(slots=True)
class _SlotAudio:
    """What the host knows of a slot's audio on the device."""

    generation: int = 0
    num_samples: int = 0
    final_blocks: int = 0


class SlotFeatures:
    """Touched only by the engine thread. `log_mel` is a module of the two functions."""

    def __init__(self, num_rows: int, num_mels: int, device: torch.device, log_mel: Any) -> None:
        self._log_mel = log_mel
        self._device = device
        # One sample more than a window: where padding is written.
        self._audio = torch.zeros(num_rows, MAX_WINDOW_SAMPLES + 1, device=device)
        self._frames = torch.zeros(num_rows, MAX_WINDOW_FRAMES, num_mels, device=device)
        self._peaks = torch.zeros(num_rows, MAX_BLOCKS, device=device)
        self._tables = MelTables.build(mel_filters(num_mels), device)
        self._slots = [_SlotAudio() for _ in range(num_rows)]

    def compute(
        self, rows: Sequence[EncodeRow | ExtendRow], num_frames: int, dtype: torch.dtype
    ) -> Tensor:
        """Whisper's input features [rows, n_mels, num_frames] of the windows of `rows`.

        Sends what the device lacks of their audio and computes what changed.
        """
        slots, counts, firsts, known, finals = [], [], [], [], []
        for row in rows:
            state = self._slots[row.slot.index]
            if state.generation != row.slot.generation:
                state.generation = row.slot.generation
                state.num_samples = state.final_blocks = 0
            count = len(row.samples)
            if count > MAX_WINDOW_SAMPLES:
                raise ValueError(
                    f"a window holds {MAX_WINDOW_SAMPLES} samples at most, got {count}"
                )
            final = num_final_blocks(count)
            slots.append(row.slot.index)
            counts.append(count)
            known.append(min(state.num_samples, count))
            firsts.append(min(state.final_blocks, final))
            finals.append(final)
        layout = np.array((slots, counts, firsts, known), dtype=np.int64)
        on_device = to_device(layout, self._device)
        self._append(rows, known, on_device)
        most_blocks = max(
            num_blocks(count) - first for count, first in zip(counts, firsts, strict=True)
        )
        self._log_mel.update_log_mel(
            self._audio[:, :MAX_WINDOW_SAMPLES],
            on_device[1],
            on_device[2],
            on_device[0],
            self._frames,
            self._peaks,
            self._tables,
            most_blocks=most_blocks,
        )
        # Only now: if memory ran out on the way, nothing of it counts as done.
        for row, count, final in zip(rows, counts, finals, strict=True):
            state = self._slots[row.slot.index]
            state.num_samples = max(state.num_samples, count)
            state.final_blocks = final
        features: Tensor = self._log_mel.mel_features(
            self._frames, self._peaks, on_device[1], on_device[0], num_frames, dtype
        )
        return features

    def _append(
        self, rows: Sequence[EncodeRow | ExtendRow], known: Sequence[int], layout: Tensor
    ) -> None:
        """Send the samples of each row from `known` on."""
        longest = max(len(row.samples) - at for row, at in zip(rows, known, strict=True))
        if longest <= 0:
            return
        staged = np.zeros((len(rows), longest), dtype=np.float32)
        for target, row, at in zip(staged, rows, known, strict=True):
            target[: len(row.samples) - at] = row.samples[at:]
        new = to_device(staged, self._device)
        slots, counts, starts = layout[0], layout[1], layout[3]
        index = starts[:, None] + torch.arange(longest, device=self._device)
        index = torch.where(index < counts[:, None], index, MAX_WINDOW_SAMPLES)
        self._audio[slots[:, None], index] = new


def feature_bytes(num_mels: int) -> int:
    """Device memory of one slot's audio and frames."""
    return 4 * (MAX_WINDOW_SAMPLES + num_mels * MAX_WINDOW_FRAMES)
