"""What training minimises: the decoder's text, CTC whole and word by word, and where heads look.

CTC over characters, per word where the synthesiser tells its place, and two cross-attention
heads guided to that place are what gets a small model off its plateau; the decoder's loss alone,
or CTC over pieces, stays there.
"""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.batches import Batch
from training.data.targets import BLANK, IGNORED
from training.model.network import Outputs

# Over text alone: smoothing that reaches the 1501 timestamps feeds Whisper's rule "timestamps
# outweigh text", and segments end early.
_SMOOTHING: Final = 0.1
# Around the word's place, in positions.
_LOOK_BEFORE, _LOOK_BEHIND = 4, 5
_LEAST_MASS: Final = 1e-3
# Weights at the start and from `_SETTLED_AFTER` steps on: alignment first, text later.
_SETTLED_AFTER: Final = 2500
_TEXT: Final = (0.4, 0.7)
_WHOLE_CTC: Final = (0.3, 0.3)
_WORD_CTC: Final = (0.5, 0.1)
_GUIDANCE: Final = (0.3, 0.05)


@dataclass(frozen=True, slots=True)
class Losses:
    """The parts, each per token, character or word, and the share of right tokens; scalars."""

    text: Tensor
    ctc: Tensor
    word_ctc: Tensor
    guidance: Tensor
    accuracy: Tensor

    def total(self, step: int, *, aligned: bool = False) -> Tensor:
        """What is minimised in that step; one who is `aligned` from the start is settled."""
        settled = 1.0 if aligned else min(1.0, step / _SETTLED_AFTER)
        parts = (
            (_TEXT, self.text),
            (_WHOLE_CTC, self.ctc),
            (_WORD_CTC, self.word_ctc),
            (_GUIDANCE, self.guidance),
        )
        weighed = [(a + (b - a) * settled) * part for (a, b), part in parts]
        return torch.stack(weighed).sum()


class LossFunction:
    """`num_text_tokens` are smoothed over; `uncertain` are the tokens that stand for others.

    Where a label is not certain, these are left out of what it is compared with: neither a
    capital nor a comma counts as wrong there.
    """

    def __init__(
        self, num_text_tokens: int, n_vocab: int, uncertain: list[int], device: torch.device
    ) -> None:
        self._num_text_tokens = num_text_tokens
        self._uncertain = torch.zeros(n_vocab, dtype=torch.bool, device=device)
        self._uncertain[uncertain] = True

    def losses(self, outputs: Outputs, batch: Batch, *, aligned: bool = False) -> Losses:
        """Of one batch on its device. Of a network that is `aligned` already there is no CTC."""
        text, accuracy = self._text(outputs.logits, batch)
        guidance = _guidance(outputs.guided, batch)
        if aligned:
            return Losses(text, text.new_zeros(()), text.new_zeros(()), guidance, accuracy)
        log_probs = outputs.ctc.float().log_softmax(dim=-1)
        whole, by_word = _whole_ctc(log_probs, batch), _word_ctc(log_probs, batch)
        return Losses(text, whole, by_word, guidance, accuracy)

    def _text(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        counted = batch.labels != IGNORED
        labels = batch.labels[counted]
        chosen = logits[counted].float()
        left_out = self._uncertain & ~batch.certain[counted][:, None]
        left_out = left_out.scatter(1, labels[:, None], value=False)
        log_probs = chosen.masked_fill(left_out, -torch.inf).log_softmax(dim=-1)
        right = log_probs.gather(1, labels[:, None])[:, 0]
        texts = ~left_out[:, : self._num_text_tokens]
        among_texts = log_probs[:, : self._num_text_tokens].masked_fill(~texts, 0.0)
        mean = among_texts.sum(dim=1) / texts.sum(dim=1)
        smoothing = _SMOOTHING * (labels < self._num_text_tokens)
        loss = -((1 - smoothing) * right + smoothing * mean).mean()
        return loss, (log_probs.argmax(dim=-1) == labels).float().mean().detach()


def _whole_ctc(log_probs: Tensor, batch: Batch) -> Tensor:
    """Of everything said in each row, per character."""
    lengths = batch.character_lengths
    positions = torch.full_like(lengths, log_probs.shape[1])
    return _ctc(log_probs, batch.characters, positions, lengths)


def _word_ctc(log_probs: Tensor, batch: Batch) -> Tensor:
    """Of each word within its place, per character."""
    if not len(batch.words):
        return log_probs.new_zeros(())
    rows, begin, end = batch.words.unbind(1)
    counts = end - begin
    longest = int(counts.max())
    at = begin[:, None] + torch.arange(longest, device=begin.device)
    within = log_probs[rows[:, None], at.clamp(max=log_probs.shape[1] - 1)]
    return _ctc(within, batch.word_characters, counts.cpu(), batch.word_lengths)


def _ctc(log_probs: Tensor, targets: Tensor, positions: Tensor, lengths: Tensor) -> Tensor:
    losses = F.ctc_loss(
        log_probs.transpose(0, 1),
        targets,
        positions,
        lengths,
        blank=BLANK,
        reduction="none",
        zero_infinity=True,
    )
    return losses.sum() / lengths.sum().clamp(min=1).to(losses.device)


def _guidance(guided: Tensor, batch: Batch) -> Tensor:
    """How little of the guided heads' attention lies on the word that is being written."""
    positions = guided.shape[-1]
    is_known = batch.spans[..., 0] >= 0
    begin = (batch.spans[..., 0] - _LOOK_BEFORE).clamp(0, positions)
    end = (batch.spans[..., 1] + _LOOK_BEHIND).clamp(0, positions)
    sums = F.pad(guided.cumsum(dim=-1), (1, 0))
    at_end = sums.gather(3, end.expand(len(guided), -1, -1)[..., None])
    at_begin = sums.gather(3, begin.expand(len(guided), -1, -1)[..., None])
    mass = (at_end - at_begin)[..., 0]
    missed = -(mass + _LEAST_MASS).log() * is_known
    return missed.sum() / (is_known.sum().clamp(min=1) * len(guided))
