"""Whisper's log-mel features of a batch, and what is changed in them: formants, rooms, masks."""

from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engine.audio.units import FFT_SAMPLES, HOP_SAMPLES, SAMPLE_RATE
from engine.model.mel import mel_filters

# Vocal tracts relative to the speaker's own, from longer to shorter.
_TRACTS: Final = (0.82, 0.86, 0.9, 0.94, 0.97, 1.0, 1.03, 1.06, 1.1, 1.14, 1.19)
_SAME_TRACT_SHARE: Final = 0.5
_KNEE: Final = 0.8  # of the highest frequency: above it the warp returns to the identity
_EQUALISED_SHARE: Final = 0.4
_EQUALISER_POINTS: Final = 6
_EQUALISER_DECADES: Final = 0.6
_FLOOR: Final = 1e-10
_RANGE: Final = 8.0
# SpecAugment: how often a mask is drawn, and how wide it is at most.
_BIN_MASKS: Final = ((0.66, 12), (0.4, 8))
_FRAME_MASKS: Final = ((0.6, 14), (0.4, 14), (0.25, 10))
# Long samples bear more: one mask for each of these seconds, a fifth of a second wide.
_LONG_MASKS_S: Final = (4, 8, 12, 16, 20)
_LONG_MASK: Final = (0.7, 20)


class LogMelFeatures:
    """Turns waves into the encoder's input. Touched only by the training loop."""

    def __init__(self, num_mels: int, device: torch.device) -> None:
        self._num_mels = num_mels
        self._device = device
        filters = np.stack([warp(tract) @ mel_filters(num_mels) for tract in _TRACTS])
        self._filters = torch.from_numpy(filters.astype(np.float32)).to(device)
        self._window = torch.hann_window(FFT_SAMPLES, device=device)

    @torch.no_grad()
    def features(self, waves: Tensor, lengths: Tensor, *, augment: bool = True) -> Tensor:
        """`waves` [rows, context] of `lengths` [rows] to [rows, num_mels, context // 160]."""
        rows = len(waves)
        power = self._power(waves)
        same = torch.full((rows,), _TRACTS.index(1.0), device=self._device)
        if not augment:
            return _scaled(self._apply(power, same))
        drawn = torch.randint(len(_TRACTS), (rows,), device=self._device)
        is_same = torch.rand(rows, device=self._device) < _SAME_TRACT_SHARE
        mel = self._apply(power, torch.where(is_same, same, drawn))
        return self._masked(_scaled(mel * self._equaliser(rows)), lengths)

    def _power(self, waves: Tensor) -> Tensor:
        """[rows, bins, frames]; as in the engine, what follows the context is silence."""
        half = FFT_SAMPLES // 2
        mirrored = F.pad(waves[:, None], (half, 0), mode="reflect")[:, 0]
        padded = F.pad(mirrored, (0, half))
        spectrum = torch.stft(
            padded,
            FFT_SAMPLES,
            HOP_SAMPLES,
            window=self._window,
            center=False,
            return_complex=True,
        )
        return spectrum[..., : waves.shape[1] // HOP_SAMPLES].abs().square()

    def _apply(self, power: Tensor, tracts: Tensor) -> Tensor:
        return self._filters[tracts].transpose(1, 2) @ power

    def _equaliser(self, rows: int) -> Tensor:
        """Another microphone and room: a smooth gain over the bins of some rows."""
        points = torch.rand(rows, 1, _EQUALISER_POINTS, device=self._device) - 0.5
        curve = F.interpolate(points, self._num_mels, mode="linear", align_corners=True)[:, 0]
        is_on = torch.rand(rows, 1, device=self._device) < _EQUALISED_SHARE
        gain: Tensor = 10 ** (curve * 2 * _EQUALISER_DECADES * is_on)
        return gain[..., None]

    def _masked(self, features: Tensor, lengths: Tensor) -> Tensor:
        rows, bins, frames = features.shape
        mask = torch.zeros_like(features, dtype=torch.bool)
        bin_numbers = torch.arange(bins, device=self._device)
        for share, widest in _BIN_MASKS:
            ends = torch.full((rows,), bins, device=self._device)
            mask |= self._runs(bin_numbers, ends, share, widest)[:, :, None]
        frame_numbers = torch.arange(frames, device=self._device)
        for share, widest in _FRAME_MASKS:
            mask |= self._runs(frame_numbers, lengths // HOP_SAMPLES, share, widest)[:, None, :]
        for seconds in _LONG_MASKS_S:
            if frames * HOP_SAMPLES >= seconds * SAMPLE_RATE:
                runs = self._runs(frame_numbers, lengths // HOP_SAMPLES, *_LONG_MASK)
                mask |= runs[:, None, :]
        mean = features.mean(dim=(1, 2), keepdim=True)
        return torch.where(mask, mean, features)

    def _runs(self, numbers: Tensor, ends: Tensor, share: float, widest: int) -> Tensor:
        """In a `share` of the rows, a run of up to `widest` numbers below `ends`."""
        rows = len(ends)
        width = 1 + torch.rand(rows, device=self._device) * widest
        width = width * (torch.rand(rows, device=self._device) < share)
        begin = torch.rand(rows, device=self._device) * (ends - width).clamp(min=0)
        return (numbers >= begin[:, None]) & (numbers < (begin + width)[:, None])


def warp(tract: float) -> NDArray[np.float64]:
    """[bins, bins]: the power of each bin moves to `tract` times its frequency.

    Up to a knee; from there on linearly to the top, which stays (vocal tract length
    perturbation as Jaitly and Hinton describe it).
    """
    bins = FFT_SAMPLES // 2 + 1
    top = bins - 1
    knee = _KNEE * top * min(1.0, 1 / tract)
    moved = np.interp(np.arange(bins), [0, knee, top], [0, knee * tract, top])
    below = np.minimum(np.floor(moved).astype(int), top - 1)
    part = moved - below
    matrix = np.zeros((bins, bins))
    matrix[np.arange(bins), below] = 1 - part
    matrix[np.arange(bins), below + 1] += part
    return matrix


def _scaled(mel: Tensor) -> Tensor:
    """Whisper's logarithm, clamp and scale."""
    logarithm = mel.clamp(min=_FLOOR).log10()
    loudest = logarithm.amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(logarithm, loudest - _RANGE) + 4) / 4
