"""Executes steps on a processor: stage the rows, run the model, copy out what was chosen.

Knows slots, tensors and the model; knows nothing of utterances, deadlines or sessions. Rows are
packed and attended one by one, and a step is over when `launch` returns. `device_runner` does
the same on a GPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.audio.units import MAX_WINDOW_FRAMES
from engine.decoding.draft import accept
from engine.model.attention import KeysValues, Packed, store_windows
from engine.model.decoder import Decoded
from engine.model.encoder import HALO_FRAMES, attend_sdpa
from engine.model.mel import LogMel, MelWindow
from engine.model.whisper import Whisper
from engine.runtime.aligning import boundaries_of, by_row, look_at
from engine.runtime.caches import SlotCaches
from engine.runtime.pending import Done
from engine.runtime.sampling import DecodingRules
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import (
    AlignResult,
    AlignStep,
    DecodeStep,
    EncodeResult,
    EncodeRow,
    EncodeStep,
    ExtendRow,
    ExtendStep,
    LanguageRow,
    PrefillRow,
    PrefillStep,
    Sampling,
    Step,
    StepResult,
    TokenRow,
    TokensResult,
    VerifyRow,
    VerifyStep,
)

_GREEDY: Final = Sampling(begin=0, timestamps=False)
# Below this many multiplications per token (8 M: between the embedded model and tiny) a second
# thread costs more in waiting than it saves in work; measured in docs/log.md.
_PARALLEL_DECODER_WEIGHTS: Final = 8_000_000


@dataclass(slots=True)
class _SlotState:
    """What the host knows of a slot's row."""

    mel: MelWindow
    generation: int = 0
    context: int = 0
    length: int = 0
    sampling: Sampling = _GREEDY


@dataclass(frozen=True, slots=True)
class _Feed:
    """Tokens to run from position `start` of a slot; the last `num_draft` are a draft."""

    slot: SlotHandle
    start: int
    tokens: tuple[int, ...]
    num_draft: int


class Runner:
    """One step in, one result out. Touched only by the engine thread."""

    run_ahead: Final = 0  # a step is over when it has been launched

    def __init__(
        self, model: Whisper, caches: SlotCaches, rules: DecodingRules, *, threads: int
    ) -> None:
        self._model = model
        self._threads = threads
        weights = (*model.decoder.parameters(), *model.decoder.buffers())  # quantised: buffers
        small = sum(weight.numel() for weight in weights) < _PARALLEL_DECODER_WEIGHTS
        self._decoder_threads = 1 if small else threads
        self._caches = caches
        self._rules = rules
        self._device = caches.tokens.device
        self._dtype = model.encoder.conv1.weight.dtype
        log_mel = LogMel(model.dims.n_mels)
        shape = (len(caches.lengths), MAX_WINDOW_FRAMES, model.dims.n_mels)
        frames = np.zeros(shape, dtype=np.float32)  # pages that nobody touches cost nothing
        self._slots = [_SlotState(MelWindow(log_mel, row)) for row in frames]

    def launch(self, step: Step) -> Done:
        """Run one step to its end."""
        started = perf_counter()
        result = self.run(step)
        return Done(result, perf_counter() - started)

    @torch.inference_mode()
    def run(self, step: Step) -> StepResult:
        """The result of one step."""
        torch.set_num_threads(
            self._threads if isinstance(step, EncodeStep | ExtendStep) else self._decoder_threads
        )
        match step:
            case EncodeStep():
                return self._encode(step)
            case ExtendStep():
                return self._extend(step)
            case PrefillStep():
                return self._prefill(step)
            case VerifyStep():
                return self._verify(step)
            case DecodeStep():
                return self._decode(step)
            case AlignStep():
                return self._align(step)

    def _encode(self, step: EncodeStep) -> EncodeResult:
        num_frames = 2 * step.context
        features = np.stack([self._mel(row).features(num_frames) for row in step.rows])
        slots = [row.slot.index for row in step.rows]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            if step.keep:
                store_windows(self._caches.encoder[layer], slots, key, value)
            return attend_sdpa(query, key, value)

        encoded = self._model.encoder(self._staged(features), attend)
        self._write_cross(encoded, slots, [0] * len(slots))
        return EncodeResult(tuple(row.slot for row in step.rows))

    def _extend(self, step: ExtendStep) -> EncodeResult:
        starts = [row.start for row in step.rows]
        features = np.stack(
            [
                self._mel(row).features(2 * (row.start + step.width), 2 * row.start - HALO_FRAMES)
                for row in step.rows
            ]
        )
        slots = [row.slot.index for row in step.rows]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            cache = self._caches.encoder[layer]
            store_windows(cache, slots, key, value, starts)
            attended = []
            for row, (slot, start) in enumerate(zip(slots, starts, strict=True)):
                end = start + step.width
                keys, values = cache.keys[slot, :end], cache.values[slot, :end]
                attended.append(attend_sdpa(query[row][None], keys[None], values[None]))
            return torch.cat(attended)

        encoded = self._model.encoder.extend(
            self._staged(features), torch.tensor(starts, device=self._device), attend
        )
        self._write_cross(encoded, slots, starts)
        return EncodeResult(tuple(row.slot for row in step.rows))

    def _mel(self, row: EncodeRow | ExtendRow) -> MelWindow:
        """The mel frames of a row's slot, brought up to its samples."""
        state = self._slots[row.slot.index]
        if state.generation != row.slot.generation:
            state.mel.restart()
            state.generation = row.slot.generation
        state.mel.update(row.samples)
        return state.mel

    def _staged(self, features: NDArray[np.float32]) -> Tensor:
        """[rows, frames, n_mels] as the encoder's input."""
        return torch.from_numpy(features).to(self._device, self._dtype).transpose(1, 2)

    def _write_cross(self, encoded: Tensor, slots: Sequence[int], starts: Sequence[int]) -> None:
        """Keep what cross-attention needs of `encoded`, which begins at `starts`."""

        def store(cache: KeysValues, keys: Tensor, values: Tensor) -> None:
            store_windows(cache, slots, keys, values, starts)

        self._model.decoder.write_cross(encoded, self._caches.layers, store)
        for slot, start in zip(slots, starts, strict=True):
            self._slots[slot].context = start + encoded.shape[1]

    def _prefill(self, step: PrefillStep) -> TokensResult:
        feeds = [_Feed(row.slot, 0, row.tokens, 0) for row in step.rows]
        for row in step.rows:
            self._begin(row)
        decoded = self._feed(feeds)
        return self._choose(feeds, decoded, [row.sot_index for row in step.rows], step.rows)

    def _verify(self, step: VerifyStep) -> TokensResult:
        feeds = [
            _Feed(row.slot, row.start, row.tokens + row.draft, len(row.draft)) for row in step.rows
        ]
        for row in step.rows:
            if row.start == 0:
                self._begin(row)
        decoded = self._feed(feeds)
        sots = [row.sot_index if row.start == 0 else None for row in step.rows]
        return self._choose(feeds, decoded, sots, step.rows)

    def _decode(self, step: DecodeStep) -> TokensResult:
        indices = [slot.index for slot in step.slots]
        states = [self._slots[index] for index in indices]
        slots = torch.tensor(indices, device=self._device)
        last = self._caches.lengths[slots] - 1
        spans = tuple(
            (index, state.length - 1, 1) for index, state in zip(indices, states, strict=True)
        )
        packed = Packed.build(spans, tuple(state.context for state in states), self._device)
        tokens = self._caches.tokens[slots, last]
        hidden = self._model.decoder.embed(tokens, packed.positions)
        decoded = self._model.decoder(hidden, packed, self._caches.layers, align=False)
        logits = self._model.decoder.logits(decoded.hidden).float()
        chosen, logprobs = self._sample(logits, slots, last + 1, indices)
        self._caches.tokens[slots, last + 1] = chosen
        self._caches.lengths[slots] = last + 2
        for state in states:
            state.length += 1
        return TokensResult(
            tuple(
                TokenRow(slot, (token,), (logprob,), ())
                for slot, token, logprob in zip(
                    step.slots, chosen.tolist(), logprobs.tolist(), strict=True
                )
            )
        )

    def _align(self, step: AlignStep) -> AlignResult:
        contexts = [self._slots[row.slot.index].context for row in step.rows]
        return boundaries_of(step.rows, look_at(self._model, self._caches, step.rows, contexts))

    def _begin(self, row: PrefillRow | VerifyRow) -> None:
        """Set the rules of a decode that starts at position 0."""
        index = row.slot.index
        self._slots[index].sampling = row.sampling
        self._caches.begins[index] = row.sampling.begin
        self._caches.timestamps[index] = row.sampling.timestamps
        self._caches.temperatures[index] = row.sampling.temperature
        self._caches.seeds[index] = row.sampling.seed

    def _feed(self, feeds: Sequence[_Feed]) -> Decoded:
        """Write the tokens of all rows to their slots and run them in one pass."""
        spans = []
        for feed in feeds:
            index, end = feed.slot.index, feed.start + len(feed.tokens)
            self._caches.tokens[index, feed.start : end] = torch.tensor(feed.tokens)
            spans.append((index, feed.start, len(feed.tokens)))
        contexts = tuple(self._slots[feed.slot.index].context for feed in feeds)
        packed = Packed.build(tuple(spans), contexts, self._device)
        tokens = torch.tensor([token for feed in feeds for token in feed.tokens])
        hidden = self._model.decoder.embed(tokens.to(self._device), packed.positions)
        decoded: Decoded = self._model.decoder(hidden, packed, self._caches.layers, align=True)
        return decoded

    def _choose(
        self,
        feeds: Sequence[_Feed],
        decoded: Decoded,
        sots: Sequence[int | None],
        rows: Sequence[PrefillRow | VerifyRow],
    ) -> TokensResult:
        """Choose behind the forced tokens and behind every draft token, then accept.

        One matrix of logits for all rows: first every row's candidates, then every `sot`.
        """
        wanted, slots, targets = [], [], []
        sot_rows = []
        at = 0
        for feed, sot in zip(feeds, sots, strict=True):
            count = len(feed.tokens)
            for offset in range(count - 1 - feed.num_draft, count):
                wanted.append(at + offset)
                slots.append(feed.slot.index)
                targets.append(feed.start + offset + 1)
            if sot is not None:
                sot_rows.append(at + sot)
            at += count
        logits = self._model.decoder.logits(decoded.hidden[wanted + sot_rows]).float()
        at_sot = logits[len(wanted) :].softmax(dim=-1)
        languages = logits[len(wanted) :]
        chosen, logprobs = self._sample(
            logits[: len(wanted)],
            torch.tensor(slots, device=self._device),
            torch.tensor(targets, device=self._device),
            slots,
        )
        predicted, scores = chosen.tolist(), logprobs.tolist()
        no_speech = at_sot[:, self._rules.no_speech].tolist()
        results: list[TokenRow | LanguageRow] = []
        first = sot_at = 0
        for feed, sot, row, weights in zip(feeds, sots, rows, by_row(decoded.looks), strict=True):
            last = first + feed.num_draft + 1
            if isinstance(row, PrefillRow) and row.languages:
                results.append(_most_likely_language(row, languages[sot_at]))
            else:
                draft = feed.tokens[len(feed.tokens) - feed.num_draft :]
                count = accept(draft, predicted[first:last]) + 1
                peaks = weights[:, len(feed.tokens) - feed.num_draft - 1 :].mean(dim=0)
                results.append(
                    TokenRow(
                        feed.slot,
                        tuple(predicted[first : first + count]),
                        tuple(scores[first : first + count]),
                        tuple(peaks[:count].argmax(dim=-1).tolist()),
                        no_speech[sot_at] if sot is not None else None,
                    )
                )
                self._accept(feed, predicted[first + count - 1], count)
            first = last
            sot_at += sot is not None
        return TokensResult(tuple(results))

    def _accept(self, feed: _Feed, token: int, count: int) -> None:
        """Keep the accepted draft and `token` behind it as the tokens of the slot."""
        index = feed.slot.index
        length = feed.start + len(feed.tokens) - feed.num_draft + count
        self._caches.tokens[index, length - 1] = token
        self._caches.lengths[index] = length
        self._slots[index].length = length

    def _sample(
        self, logits: Tensor, slots: Tensor, targets: Tensor, indices: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Choose a token for each row of `logits` [rows, n_vocab] under the slot's rules."""
        samplings = [self._slots[index].sampling for index in indices]
        return self._rules.choose(
            logits,
            self._caches,
            slots,
            targets,
            timestamps=any(sampling.timestamps for sampling in samplings),
            drawn=any(sampling.temperature > 0.0 for sampling in samplings),
        )


def _most_likely_language(row: PrefillRow, logits: Tensor) -> LanguageRow:
    """openai/whisper `detect_language`: the softmax over language tokens alone."""
    probabilities = logits[list(row.languages)].softmax(dim=-1)
    best = int(probabilities.argmax())
    return LanguageRow(row.slot, row.languages[best], float(probabilities[best]))
