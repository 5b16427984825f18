"""What the device does in a step, as functions of tensors that never ask the host.

Each program reads and writes the slots' state in place (tokens, lengths, rules, caches), so a
step needs only slots and what is new, and a step can be launched before the result of the one
before it is known. They run eagerly or inside CUDA graphs; padding rows point at the scratch
slot.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from engine.audio.units import FRAMES_PER_POSITION, MAX_WINDOW_POSITIONS
from engine.model.attention import KeysValues
from engine.model.backends import AttentionBackend
from engine.model.encoder import HALO_FRAMES
from engine.model.ops import Ops
from engine.model.padded import Padded
from engine.model.whisper import Whisper
from engine.runtime.caches import SlotCaches
from engine.runtime.decode_ends import DecodeEnds
from engine.runtime.sampling import Choose, DecodingRules


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Which back end attends in which kind of step."""

    encode: AttentionBackend
    prefill: AttentionBackend
    verify: AttentionBackend
    decode: AttentionBackend


class Column(IntEnum):
    """What stands where in a staged feed row [columns] int32; its tokens stand behind."""

    SLOT = 0
    START = 1  # position of the first token
    COUNT = 2  # tokens, draft included
    DRAFT = 3  # of them at the end
    SOT = 4  # offset of `sot` among the tokens
    BEGIN = 5
    TIMESTAMPS = 6
    TEMPERATURE = 7  # the bits of a float32
    SEED = 8
    TOKENS = 9


class Programs:
    """The programs of one model. Touched only by the engine thread."""

    def __init__(
        self,
        model: Whisper,
        caches: SlotCaches,
        rules: DecodingRules,
        attention: AttentionPlan,
        ops: Ops,
        choose: Choose,
        ends: DecodeEnds,
    ) -> None:
        self._model = model
        self._caches = caches
        self._rules = rules
        self._attention = attention
        self._ops = ops
        self._choose = choose
        self._ends = ends

    def encode(self, features: Tensor, slots: Tensor, *, keep: bool) -> tuple[Tensor, ...]:
        """Encode `features` [rows, n_mels, frames] and keep what cross-attention needs.

        `slots` [rows] int64; with `keep` what an extension needs is kept too. Returns nothing.
        """
        backend = self._attention.encode

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            if keep:
                _store(backend, self._caches.encoder[layer], slots, key, value)
            return backend.encode(query, key, value)

        encoded = self._model.encoder(features, attend, self._ops)
        self._write_cross(encoded, slots)
        # Not by assignment: that would fetch the number from the host's memory, and wait.
        self._caches.contexts.index_fill_(0, slots, encoded.shape[1])
        return ()

    def extend(self, features: Tensor, slots: Tensor, starts: Tensor) -> tuple[Tensor, ...]:
        """Encode windows anew from `starts` on, against what was kept of the positions before.

        `features` [rows, n_mels, HALO_FRAMES + frames], as `AudioEncoder.extend` takes them;
        `slots` and `starts` [rows] int64. Returns nothing.
        """
        backend = self._attention.prefill  # many queries over slots
        seen = starts + (features.shape[2] - HALO_FRAMES) // FRAMES_PER_POSITION

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            cache = self._caches.encoder[layer]
            _store(backend, cache, slots, key, value, starts)
            return backend.slot_attention(
                query,
                cache.keys,
                cache.values,
                slots,
                seen,
                causal=False,
                most=MAX_WINDOW_POSITIONS,
            )

        encoded = self._model.encoder.extend(features, starts, attend, self._ops)
        self._write_cross(encoded, slots, starts)
        self._caches.contexts[slots] = seen
        return ()

    def _write_cross(self, encoded: Tensor, slots: Tensor, starts: Tensor | None = None) -> None:
        backend = self._attention.encode

        def store(cache: KeysValues, keys: Tensor, values: Tensor) -> None:
            _store(backend, cache, slots, keys, values, starts)

        self._model.decoder.write_cross(encoded, self._caches.layers, store)

    def decode(self, slots: Tensor, *, reach: int) -> tuple[Tensor, ...]:
        """One token for each of `slots` [rows] int64, whose windows are within `reach`.

        Returns tokens and the bits of their log-probabilities [2, rows] int32.
        """
        caches, decoder = self._caches, self._model.decoder
        hidden, seen, contexts = self._ends.begin(slots, caches, decoder)
        layout = Padded(
            self._attention.decode,
            slots,
            seen,
            contexts,
            width=1,
            most_tokens=self._model.dims.n_text_ctx,
            most_positions=reach,
        )
        decoded = decoder(hidden, layout, caches.layers, align=False, ops=self._ops)
        logits = decoder.logits(decoded.hidden)
        chosen, logprobs = self._choose(logits, caches, slots, seen)
        return (self._ends.finish(slots, seen, chosen, logprobs, caches),)

    def feed(self, staged: Tensor, *, outs: int, reach: int) -> tuple[Tensor, ...]:
        """Feed tokens, choose behind them and accept of each draft what greedy decoding says.

        `staged` [rows, Column.TOKENS + width] int32. Returns [rows, 2 + 3 × outs] int32: how many
        draft tokens were accepted, the bits of the no-speech probability, then tokens, bits of
        log-probabilities and attention peaks of the `outs` choices; and the logits of the
        languages at `sot` [rows, languages] float32, in the order of `DecodingRules.languages`.
        """
        caches, dims = self._caches, self._model.dims
        columns = staged[:, : Column.TOKENS].long()
        tokens = staged[:, Column.TOKENS :].long()
        rows, width = tokens.shape
        # Kernels read an index per row, one behind the other.
        slots, starts = columns[:, : Column.COUNT].T.contiguous()
        drafts = columns[:, Column.DRAFT]
        self._set_rules(slots, staged, columns)
        offsets = torch.arange(width, device=tokens.device)
        # Behind the text context lies room for what padding feeds; a row may have more of it.
        index = (starts[:, None] + offsets).clamp(max=caches.tokens.shape[1] - 1)
        caches.tokens[slots[:, None], index] = tokens

        layout = Padded(
            self._attention.prefill if outs == 1 else self._attention.verify,
            slots,
            starts + 1,
            caches.contexts[slots],
            width=width,
            most_tokens=dims.n_text_ctx,
            most_positions=reach,
        )
        # Padding may reach behind the last position there is; what it computes is thrown away.
        positions = (starts[:, None] + offsets).clamp(max=dims.n_text_ctx - 1)
        hidden = self._model.decoder.embed(tokens.flatten(), positions.flatten())
        decoded = self._model.decoder(hidden, layout, caches.layers, align=True, ops=self._ops)
        # The choice behind the last forced token, then behind each draft token.
        first = columns[:, Column.COUNT] - 1 - drafts
        chosen_at = (first[:, None] + offsets[:outs]).clamp(max=width - 1)
        base = torch.arange(rows, device=tokens.device)[:, None] * width
        at_sot = base[:, 0] + columns[:, Column.SOT]
        wanted = torch.cat(((base + chosen_at).flatten(), at_sot))
        logits = self._model.decoder.logits(decoded.hidden[wanted])
        at_sot_logits = logits[rows * outs :].float()
        no_speech = at_sot_logits.softmax(dim=-1)[:, self._rules.no_speech]
        targets = starts[:, None] + chosen_at + 1
        chosen, logprobs = self._choose(
            logits[: rows * outs], caches, slots.repeat_interleave(outs), targets.flatten()
        )
        chosen, logprobs = chosen.view(rows, outs), logprobs.view(rows, outs)

        drafted = tokens.gather(1, (chosen_at + 1).clamp(max=width - 1))
        matches = (chosen == drafted) & (offsets[:outs] < drafts[:, None])
        accepted = matches.long().cumprod(dim=1).sum(dim=1)
        last = starts + first + accepted + 1  # index of the token behind what was accepted
        caches.tokens[slots, last] = chosen.gather(1, accepted[:, None].clamp(max=outs - 1))[:, 0]
        caches.lengths[slots] = last + 1

        weights = torch.stack([looked for (looked,) in decoded.looks]).sum(dim=0)
        peaks = weights.argmax(dim=-1).gather(1, chosen_at)
        return (
            torch.cat(
                (
                    accepted[:, None].int(),
                    no_speech[:, None].view(torch.int32),
                    chosen.int(),
                    logprobs.view(torch.int32),
                    peaks.int(),
                ),
                dim=1,
            ),
            at_sot_logits.index_select(1, self._rules.languages),
        )

    def _set_rules(self, slots: Tensor, staged: Tensor, columns: Tensor) -> None:
        """What choosing for these slots has to keep to, from now on."""
        caches = self._caches
        caches.begins[slots] = columns[:, Column.BEGIN]
        caches.timestamps[slots] = columns[:, Column.TIMESTAMPS] != 0
        temperatures = staged[:, Column.TEMPERATURE].contiguous().view(torch.float32)
        caches.temperatures[slots] = temperatures
        caches.seeds[slots] = columns[:, Column.SEED]


def _store(
    backend: AttentionBackend,
    cache: KeysValues,
    slots: Tensor,
    keys: Tensor,
    values: Tensor,
    starts: Tensor | None = None,
) -> None:
    backend.store(
        keys,
        values,
        cache.keys,
        cache.values,
        slots,
        starts=starts,
        key_scales=cache.key_scales,
        value_scales=cache.value_scales,
    )
