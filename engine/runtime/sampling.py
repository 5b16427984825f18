"""Whisper's decoding rules as masks on tensors, and the choice of a token.

The rules are openai/whisper `decoding.py`'s (`SuppressBlank`, `SuppressTokens`,
`ApplyTimestampRules`), in the form that `transformers` applies them. They read the tokens of
the slot, so every position of a drafted row is ruled as if the draft before it were accepted.
Nothing here reads a value back to the host.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.noise import gumbel_noise
from engine.model.generation import GenerationDefaults
from engine.runtime.caches import SlotCaches
from engine.text.tokenizer import Tokenizer

# Chooses index `targets` of `slots`, both [rows], from `logits` [rows, n_vocab] of any format:
# tokens int64 and log-probabilities float32.
Choose = Callable[[Tensor, SlotCaches, Tensor, Tensor], tuple[Tensor, Tensor]]

_NEVER = float("-inf")
_LEAST_TEMPERATURE = 1e-3  # below it a draw is the best token anyway


@dataclass(frozen=True, slots=True)
class DecodingRules:
    """The token ids and masks of one checkpoint, on the device."""

    suppressed: Tensor  # [n_vocab] bool, never chosen
    suppressed_first: Tensor  # [n_vocab] bool, not chosen first
    languages: Tensor  # [languages] int64, token ids in the tokenizer's order
    eot: int
    no_speech: int
    no_timestamps: int
    timestamp_begin: int
    max_initial_timestamp: int | None

    @classmethod
    def build(
        cls,
        generation: GenerationDefaults,
        tokenizer: Tokenizer,
        num_vocab: int,
        device: torch.device,
    ) -> "DecodingRules":
        """Take the rules from a checkpoint's generation settings."""

        def mask(ids: Sequence[int]) -> Tensor:
            chosen = torch.zeros(num_vocab, dtype=torch.bool, device=device)
            chosen[list(ids)] = True
            return chosen

        return cls(
            mask(generation.suppress_tokens),
            mask(generation.begin_suppress_tokens),
            torch.tensor(list(tokenizer.languages.values()), device=device),
            tokenizer.eot,
            tokenizer.no_speech,
            tokenizer.no_timestamps,
            tokenizer.timestamp_begin,
            generation.max_initial_timestamp_index,
        )

    def choose(
        self,
        logits: Tensor,
        caches: SlotCaches,
        slots: Tensor,
        targets: Tensor,
        *,
        timestamps: bool = True,
        drawn: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Choose index `targets` of `slots`, both [rows] int64, from `logits` [rows, n_vocab].

        Tokens and log-probabilities [rows]. Draws are repeatable: seed, index and token decide
        them. Changes `logits`. `timestamps` and `drawn` false tell that no slot among them has
        timestamps or a temperature, which saves work for nothing.
        """
        ruled = self.apply(logits, caches, slots, targets, timestamps=timestamps)
        noise = None
        if drawn:
            noise = gumbel_noise(caches.seeds[slots], targets, logits.shape[1])
        return choose(ruled, caches.temperatures[slots], noise)

    def apply(
        self,
        logits: Tensor,
        caches: SlotCaches,
        slots: Tensor,
        targets: Tensor,
        *,
        timestamps: bool = True,
    ) -> Tensor:
        """Rule out tokens: `logits` [rows, n_vocab] float32 predict index `targets` of `slots`.

        Both are [rows] int64. Changes `logits` in place and returns it. `timestamps` false tells
        that no slot among them has timestamps, which saves working out their rules for nothing.
        """
        logits.masked_fill_(self.suppressed, _NEVER)
        begins = caches.begins[slots]
        first = (targets == begins)[:, None]
        logits.masked_fill_(first & self.suppressed_first, _NEVER)
        if not timestamps:
            return logits
        return self._apply_timestamps(logits, caches, slots, targets, begins)

    def _apply_timestamps(
        self, logits: Tensor, caches: SlotCaches, slots: Tensor, targets: Tensor, begins: Tensor
    ) -> Tensor:
        ruled = caches.timestamps[slots][:, None]
        tokens = caches.tokens[slots]
        index = torch.arange(tokens.shape[1], device=tokens.device)
        sampled = (index >= begins[:, None]) & (index < targets[:, None])
        is_timestamp = (tokens >= self.timestamp_begin) & sampled

        def ends_in_timestamp(back: int) -> Tensor:
            at = (targets - back).clamp(min=0)[:, None]
            return is_timestamp.gather(1, at)

        last = ends_in_timestamp(1)
        # With fewer than two tokens the one before last counts as a timestamp.
        before_last = ends_in_timestamp(2) | (targets - begins < 2)[:, None]
        first = (targets == begins)[:, None]

        ids = torch.arange(logits.shape[1], device=logits.device)
        timestamps, text = ids >= self.timestamp_begin, ids < self.eot
        # Timestamps never decrease, and a closed span is not empty.
        latest = torch.where(is_timestamp, tokens, self.timestamp_begin - 1).amax(1, keepdim=True)
        least = torch.where(last & ~before_last, latest, latest + 1)
        forbidden = (
            (ids == self.no_timestamps)
            | (last & before_last & timestamps)
            | (last & ~before_last & text)
            | (timestamps & (ids < least) & (latest >= self.timestamp_begin))
            | (first & ~timestamps)
        )
        if self.max_initial_timestamp is not None:
            forbidden |= first & (ids > self.timestamp_begin + self.max_initial_timestamp)
        logits.masked_fill_(ruled & forbidden, _NEVER)

        # Where timestamps together outweigh every other token, one of them is chosen.
        logprobs = logits.log_softmax(dim=-1)
        weight = logprobs.masked_fill(~timestamps, _NEVER).logsumexp(dim=-1, keepdim=True)
        others = logprobs.masked_fill(timestamps, _NEVER).amax(dim=-1, keepdim=True)
        return logits.masked_fill_(ruled & (weight > others) & ~timestamps, _NEVER)


def choose(
    logits: Tensor, temperatures: Tensor, noise: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A token for each row of ruled `logits` [rows, n_vocab], and its log-probability.

    The best one; at a temperature above 0 the best behind `noise` [rows, n_vocab], which draws
    it (Gumbel-max). The log-probability is that without temperature, as in openai/whisper.
    """
    scores = logits
    if noise is not None:
        tempered = logits / temperatures.clamp(min=_LEAST_TEMPERATURE)[:, None] + noise
        scores = torch.where(temperatures[:, None] > 0.0, tempered, logits)
    tokens = scores.argmax(dim=-1)
    return tokens, logits.log_softmax(dim=-1).gather(1, tokens[:, None]).squeeze(1)


def plain_choice(rules: DecodingRules) -> Choose:
    """`DecodingRules.choose` for rows that the host knows nothing of."""

    def chosen(
        logits: Tensor, caches: SlotCaches, slots: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        return rules.choose(logits.float(), caches, slots, targets)

    return chosen


def fused_choice(rules: DecodingRules) -> Choose:
    """The same in two launches. Raises ImportError where Triton is not installed."""
    from engine.kernels.token_choice import choose_tokens

    def chosen(
        logits: Tensor, caches: SlotCaches, slots: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        return choose_tokens(
            logits,
            caches.tokens,
            slots,
            targets,
            caches.begins,
            caches.timestamps,
            caches.temperatures,
            caches.seeds,
            rules.suppressed,
            rules.suppressed_first,
            eot=rules.eot,
            no_timestamps=rules.no_timestamps,
            timestamp_begin=rules.timestamp_begin,
            max_initial_timestamp=rules.max_initial_timestamp,
        )

    return chosen
