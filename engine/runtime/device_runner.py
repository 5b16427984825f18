"""Executes steps on a GPU: pads them to captured shapes, launches them, reads results later.

Nothing between two launches waits for the device. What a step needs of an earlier one it finds
in the slots' own tensors; results are copied out behind the step and read when they are asked
for. On a processor, where the tests run it, a launch is simply over when it returns.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.audio.units import FRAMES_PER_POSITION
from engine.model.encoder import HALO_FRAMES
from engine.model.staging import pinned, to_device
from engine.model.whisper import Whisper
from engine.runtime.aligning import boundaries_of, look_at
from engine.runtime.buckets import (
    DecodeShape,
    EncodeShape,
    ExtendShape,
    FeedShape,
    Shape,
    decode_shape,
    encode_shape,
    extend_shape,
    feed_shape,
)
from engine.runtime.caches import SlotCaches
from engine.runtime.features import SlotFeatures
from engine.runtime.graphs import GraphRunner, Program
from engine.runtime.launched import Copied, Joined, Launched, Stopwatch
from engine.runtime.pending import Pending
from engine.runtime.programs import Column, Programs
from engine.scheduling.steps import (
    AlignStep,
    DecodeStep,
    EncodeResult,
    EncodeStep,
    ExtendStep,
    LanguageRow,
    PrefillRow,
    PrefillStep,
    Step,
    StepResult,
    TokenRow,
    TokensResult,
    VerifyRow,
    VerifyStep,
    halve,
)


class DeviceRunner:
    """Touched only by the engine thread. `languages` are ids in `DecodingRules.languages`' order.

    Out of memory halves a step once; what does not fit then either raises
    torch.OutOfMemoryError, as everything a launch raises is the caller's to deal with.
    """

    def __init__(
        self,
        model: Whisper,
        caches: SlotCaches,
        programs: Programs,
        features: SlotFeatures,
        languages: Sequence[int],
        graphs: GraphRunner | None = None,
        *,
        run_ahead: int = 1,
    ) -> None:
        self.run_ahead = run_ahead
        self._model = model
        self._caches = caches
        self._programs = programs
        self._features = features
        self._graphs = graphs
        self._device = caches.tokens.device
        self._dtype = model.encoder.conv1.weight.dtype
        self._contexts = [1] * len(caches.lengths)
        self._language_columns = {token: at for at, token in enumerate(languages)}

    def launch(self, step: Step) -> Pending:
        """Begin a step."""
        try:
            return self._launch(step)
        except torch.OutOfMemoryError:
            halves = halve(step)
            if halves is None:
                raise
        # Only here: the exception holds on to what the failed launch had got so far.
        torch.cuda.empty_cache()
        return Joined([self._launch(half) for half in halves])

    @torch.inference_mode()
    def _launch(self, step: Step) -> Launched:
        watch = Stopwatch(self._device)
        match step:
            case EncodeStep():
                read = self._encode(step)
            case ExtendStep():
                read = self._extend(step)
            case PrefillStep() | VerifyStep():
                read = self._feed(step.rows)
            case DecodeStep():
                read = self._decode(step)
            case AlignStep():
                contexts = [self._contexts[row.slot.index] for row in step.rows]
                looks = look_at(self._model, self._caches, step.rows, contexts)
                read = partial(boundaries_of, step.rows, [Copied(look) for look in looks])
        watch.stop()
        return Launched(read, watch, waits=not isinstance(step, EncodeStep | ExtendStep))

    @torch.inference_mode()
    def capture(self, shape: Shape) -> None:
        """Record the graph of one shape; on the scratch slot, so nobody's state changes."""
        if self._graphs is None:
            raise ValueError("this runner was built without graphs")
        match shape:
            case DecodeShape():
                inputs: tuple[Tensor, ...] = (self._scratch_slots(shape.rows),)
            case FeedShape():
                inputs = (to_device(self._staged(shape), self._device),)
            case EncodeShape():
                features = self._no_features(shape.rows, FRAMES_PER_POSITION * shape.context)
                inputs = (features, self._scratch_slots(shape.rows))
            case ExtendShape():
                frames = HALO_FRAMES + FRAMES_PER_POSITION * shape.width
                slots = self._scratch_slots(shape.rows)
                inputs = (self._no_features(shape.rows, frames), slots, torch.zeros_like(slots))
        self._graphs.capture(shape, self._program(shape), inputs)

    # Running a program, padded to its shape.

    def _program(self, shape: Shape) -> Program:
        match shape:
            case DecodeShape():
                return partial(self._programs.decode, reach=shape.reach)
            case FeedShape():
                return partial(self._programs.feed, outs=shape.outs, reach=shape.reach)
            case EncodeShape():
                return partial(self._programs.encode, keep=shape.keep)
            case ExtendShape():
                return self._programs.extend

    def _run(self, shape: Shape, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Replay or run; inputs may lie in the host's pinned memory."""
        if self._graphs is not None and self._graphs.can_replay(shape):
            return self._graphs.replay(shape, inputs)
        on_device = (it.to(self._device, non_blocking=True) for it in inputs)
        return self._program(shape)(*on_device)

    def _encode(self, step: EncodeStep) -> Callable[[], StepResult]:
        shape = encode_shape(len(step.rows), step.context, keep=step.keep)
        if self._graphs is None or not self._graphs.can_replay(shape):
            shape = EncodeShape(len(step.rows), step.context, step.keep)
        features = self._features.compute(
            step.rows, FRAMES_PER_POSITION * step.context, self._dtype
        )
        slots = [row.slot.index for row in step.rows]
        for slot in slots:
            self._contexts[slot] = step.context
        self._run(shape, (_padded(features, shape.rows), self._padded_slots(slots, shape.rows)))
        result = EncodeResult(tuple(row.slot for row in step.rows))
        return lambda: result

    def _extend(self, step: ExtendStep) -> Callable[[], StepResult]:
        shape = extend_shape(len(step.rows), step.width)
        if self._graphs is None or not self._graphs.can_replay(shape):
            shape = ExtendShape(len(step.rows), step.width)
        slots = [row.slot.index for row in step.rows]
        starts = np.zeros(shape.rows, dtype=np.int64)
        starts[: len(slots)] = [row.start for row in step.rows]
        contexts = [row.start + step.width for row in step.rows]
        for slot, context in zip(slots, contexts, strict=True):
            self._contexts[slot] = context
        whole = self._features.compute(step.rows, FRAMES_PER_POSITION * max(contexts), self._dtype)
        starts_on_device = to_device(starts, self._device)
        first = FRAMES_PER_POSITION * starts_on_device[: len(slots)] - HALO_FRAMES
        offsets = torch.arange(HALO_FRAMES + FRAMES_PER_POSITION * step.width, device=self._device)
        index = (first[:, None] + offsets)[:, None].expand(-1, whole.shape[1], -1)
        features = whole.gather(2, index)
        self._run(
            shape,
            (
                _padded(features, shape.rows),
                self._padded_slots(slots, shape.rows),
                starts_on_device,
            ),
        )
        result = EncodeResult(tuple(row.slot for row in step.rows))
        return lambda: result

    def _no_features(self, rows: int, frames: int) -> Tensor:
        shape = rows, self._model.dims.n_mels, frames
        return torch.zeros(shape, dtype=self._dtype, device=self._device)

    def _decode(self, step: DecodeStep) -> Callable[[], StepResult]:
        slots = [slot.index for slot in step.slots]
        shape = decode_shape(len(slots), max(self._contexts[slot] for slot in slots))
        (chosen,) = self._run(shape, (self._padded_slots(slots, shape.rows),))
        on_host = Copied(chosen)

        def read() -> TokensResult:
            values = on_host.numpy()
            logprobs = values[1].view(np.float32).tolist()
            return TokensResult(
                tuple(
                    TokenRow(slot, (token,), (logprob,), ())
                    for slot, token, logprob in zip(
                        step.slots, values[0].tolist(), logprobs, strict=False
                    )
                )
            )

        return read

    def _feed(self, rows: Sequence[PrefillRow | VerifyRow]) -> Callable[[], StepResult]:
        starts = [row.start if isinstance(row, VerifyRow) else 0 for row in rows]
        drafts = [row.draft if isinstance(row, VerifyRow) else () for row in rows]
        fed = [row.tokens + draft for row, draft in zip(rows, drafts, strict=True)]
        shape = feed_shape(
            len(rows),
            max(map(len, fed)),
            max(map(len, drafts)),
            max(self._contexts[row.slot.index] for row in rows),
        )
        staged = self._staged(shape)
        for record, row, start, draft, tokens in zip(
            staged, rows, starts, drafts, fed, strict=False
        ):
            sampling = row.sampling
            record[Column.SLOT] = row.slot.index
            record[Column.START] = start
            record[Column.COUNT] = len(tokens)
            record[Column.DRAFT] = len(draft)
            record[Column.SOT] = row.sot_index if start == 0 else 0
            record[Column.BEGIN] = sampling.begin
            record[Column.TIMESTAMPS] = sampling.timestamps
            record[Column.TEMPERATURE] = np.float32(sampling.temperature).view(np.int32)
            record[Column.SEED] = sampling.seed
            record[Column.TOKENS : Column.TOKENS + len(tokens)] = tokens
        outputs, language_logits = self._run(shape, (pinned(staged, self._device),))
        on_host = Copied(outputs)
        languages = self._detect(rows, language_logits)

        def read() -> TokensResult:
            return _read_feed(rows, starts, on_host.numpy(), shape.outs, languages)

        return read

    def _detect(self, rows: Sequence[PrefillRow | VerifyRow], logits: Tensor) -> dict[int, Copied]:
        """For rows that detect: the most likely language's place in their list, and how likely.

        openai/whisper `detect_language`: the softmax over language tokens alone.
        """
        found = {}
        for number, row in enumerate(rows):
            if isinstance(row, PrefillRow) and row.languages:
                columns = np.array([self._language_columns[token] for token in row.languages])
                allowed = logits[number].index_select(0, to_device(columns, self._device))
                best = allowed.softmax(dim=-1).max(dim=-1)
                found[number] = Copied(torch.stack((best.values, best.indices.float())))
        return found

    def _staged(self, shape: FeedShape) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Records of a feed whose rows are all padding: one token for the scratch slot."""
        staged = np.zeros((shape.rows, Column.TOKENS + shape.width), dtype=np.int32)
        staged[:, Column.SLOT] = self._caches.scratch
        staged[:, Column.COUNT] = 1
        return staged

    def _scratch_slots(self, count: int) -> Tensor:
        return torch.full((count,), self._caches.scratch, device=self._device)

    def _padded_slots(self, slots: Sequence[int], count: int) -> Tensor:
        """With the scratch slot behind them, [count] int64, on the way to the device."""
        padded = np.full(count, self._caches.scratch, dtype=np.int64)
        padded[: len(slots)] = slots
        return pinned(padded, self._device)


def _padded(features: Tensor, rows: int) -> Tensor:
    """With windows of nothing behind its own, so that there are `rows`."""
    missing = rows - len(features)
    if not missing:
        return features
    return torch.cat((features, features.new_zeros((missing, *features.shape[1:]))))


def _read_feed(
    rows: Sequence[PrefillRow | VerifyRow],
    starts: Sequence[int],
    values: np.ndarray[Any, np.dtype[np.int32]],
    outs: int,
    languages: dict[int, Copied],
) -> TokensResult:
    """The rows of what `Programs.feed` returned, padding left out."""
    results: list[TokenRow | LanguageRow] = []
    for number, (row, start) in enumerate(zip(rows, starts, strict=True)):
        if isinstance(row, PrefillRow) and number in languages:
            probability, best = languages[number].numpy().tolist()
            results.append(LanguageRow(row.slot, row.languages[int(best)], probability))
            continue
        record = values[number]
        count = int(record[0]) + 1
        tokens, logprobs, peaks = record[2:].reshape(3, outs)[:, :count]
        results.append(
            TokenRow(
                row.slot,
                tuple(tokens.tolist()),
                tuple(logprobs.view(np.float32).tolist()),
                tuple(peaks.tolist()),
                float(record[1:2].view(np.float32)[0]) if start == 0 else None,
            )
        )
    return TokensResult(tuple(results))
