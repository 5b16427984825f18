"""Pieces of speech to what a microphone hears: speeds, rooms, noise, babble, channels, gain.

Everything is batched on the device, so that the same code serves a processor and a GPU. Touched
only by the training loop.
"""

from typing import Final

import torch
from torch import Tensor

from engine.audio.units import SAMPLE_RATE
from training.data.batches import Batch
from training.signal import channels
from training.signal.noises import noise_bank

_FULL_SCALE: Final = 32768.0
# Shares of rows. Together about one row in six is as clean as it was synthesised.
_ROOM_SHARE: Final = 0.2
_NOISE_SHARE: Final = 0.7
_LOUD_NOISE_SHARE: Final = 0.35
_BABBLE_SHARE: Final = 0.12
_NARROW_SHARE: Final = 0.15
_TELEPHONE_SHARE: Final = 0.06
_CODEC_SHARE: Final = 0.08
_GAIN_SHARE: Final = 0.9
_CLIPPED_SHARE: Final = 0.03
_DIGITAL_SILENCE_SHARE: Final = 0.1  # of the rows without speech
_TELEPHONE_HZ: Final = (300.0, 3400.0)


class Mixer:
    """Makes waves of batches, augmented or plain."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._noises = noise_bank(device)

    @torch.no_grad()
    def mix(self, batch: Batch, *, augment: bool = True) -> Tensor:
        """[rows, context] float32; silent behind each row's own length."""
        waves = place_pieces(batch)
        if not augment:
            return waves
        rows, context = waves.shape
        is_silent = ~(waves != 0).any(dim=1)
        inside = torch.arange(context, device=self._device) < batch.lengths[:, None]
        level = (waves.square().sum(dim=1) / batch.lengths).sqrt() + 1e-4
        waves = self._in_rooms(waves, is_silent)
        waves = self._with_babble(waves, is_silent)
        waves = waves + self._noise(rows, context, level, is_silent)
        waves = self._through_channels(waves, is_silent)
        return self._at_gains(waves) * inside

    def _uniform(self, rows: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(rows, device=self._device)

    def _in_rooms(self, waves: Tensor, is_silent: Tensor) -> Tensor:
        chosen = ((self._uniform(len(waves)) < _ROOM_SHARE) & ~is_silent).nonzero().flatten()
        if not len(chosen):
            return waves
        seconds = self._uniform(len(chosen), 0.1, 0.7)
        wetness = self._uniform(len(chosen), 0.1, 0.5)
        return waves.index_copy(0, chosen, channels.reverberate(waves[chosen], seconds, wetness))

    def _with_babble(self, waves: Tensor, is_silent: Tensor) -> Tensor:
        """Other people in the background: neighbours in the batch, shifted in time."""
        rows = len(waves)
        if rows < 3:
            return waves
        others = torch.roll(waves, (1, 1601), (0, 1)) + torch.roll(waves, (2, 4801), (0, 1))
        chosen = (self._uniform(rows) < _BABBLE_SHARE) & ~is_silent
        loudness = 10 ** (self._uniform(rows, -28, -8) / 20) * chosen
        return waves + others * loudness[:, None]

    def _noise(self, rows: int, context: int, level: Tensor, is_silent: Tensor) -> Tensor:
        kinds, length = self._noises.shape
        kind = torch.randint(kinds, (rows,), device=self._device)
        start = torch.randint(length - context, (rows,), device=self._device)
        at = start[:, None] + torch.arange(context, device=self._device)
        sounds = self._noises[kind[:, None], at]
        is_loud = self._uniform(rows) < _LOUD_NOISE_SHARE
        ratio_db = torch.where(is_loud, self._uniform(rows, 3, 25), self._uniform(rows, 20, 60))
        beside_speech = level * 10 ** (-ratio_db / 20) * (self._uniform(rows) < _NOISE_SHARE)
        # From the floor of a quiet room to a machine close by.
        alone = 10 ** self._uniform(rows, -4, -0.7)
        alone = alone * (self._uniform(rows) > _DIGITAL_SILENCE_SHARE)
        return sounds * torch.where(is_silent, alone, beside_speech)[:, None]

    def _through_channels(self, waves: Tensor, is_silent: Tensor) -> Tensor:
        rows = len(waves)
        kind = self._uniform(rows)
        phones = (kind < _TELEPHONE_SHARE).nonzero().flatten()
        narrow_until = _TELEPHONE_SHARE + _NARROW_SHARE
        narrow = ((kind >= _TELEPHONE_SHARE) & (kind < narrow_until)).nonzero().flatten()
        coded = ((kind > 1 - _CODEC_SHARE) & ~is_silent).nonzero().flatten()
        if len(phones):
            low, high = (
                torch.full((len(phones),), hz, device=self._device) for hz in _TELEPHONE_HZ
            )
            limited = channels.limit_band(waves[phones], low, high)
            loudest = limited.abs().amax(dim=1, keepdim=True).clamp(min=1e-4)
            coarse = channels.mu_law(limited / loudest * 0.7) * loudest / 0.7
            waves = waves.index_copy(0, phones, coarse)
        if len(narrow):
            low = self._uniform(len(narrow), 0, 400)
            high = self._uniform(len(narrow), 2500, SAMPLE_RATE / 2)
            waves = waves.index_copy(0, narrow, channels.limit_band(waves[narrow], low, high))
        if len(coded):
            floor_db = self._uniform(len(coded), 12, 30)
            waves = waves.index_copy(0, coded, channels.low_bit_rate(waves[coded], floor_db))
        return waves

    def _at_gains(self, waves: Tensor) -> Tensor:
        rows = len(waves)
        loudest = waves.abs().amax(dim=1) + 1e-3
        gain = 0.9 / loudest * 10 ** self._uniform(rows, -1.3, 0)
        gain = torch.where(self._uniform(rows) < _GAIN_SHARE, gain, torch.ones_like(gain))
        overdriven = torch.where(self._uniform(rows) < _CLIPPED_SHARE, 3.0, 1.0)
        return (waves * (gain * overdriven)[:, None]).clamp(-1, 1)


def place_pieces(batch: Batch) -> Tensor:
    """The pieces of every row at their places, [rows, context] float32.

    Linear interpolation changes the speed, and with it the pitch.
    """
    waves = torch.zeros(len(batch.lengths) * batch.context, device=batch.audio.device)
    row, offset, length, speed, gain, place = batch.pieces.unbind(1)
    counts = torch.minimum((length / speed).floor(), batch.context - place).long()
    piece = torch.repeat_interleave(counts)
    within = torch.arange(len(piece), device=waves.device) - (counts.cumsum(0) - counts)[piece]
    at = within * speed[piece]
    below = torch.minimum(at.floor(), (length - 2).clamp(min=0)[piece])
    part = (at - below).clamp(0, 1).float()
    source = offset[piece].long() + below.long()
    played = torch.lerp(batch.audio[source].float(), batch.audio[source + 1].float(), part)
    target = (row * batch.context + place)[piece].long() + within
    waves.index_add_(0, target, played * (gain[piece].float() / _FULL_SCALE))
    return waves.view(-1, batch.context)
