"""A runner without a model: it hears words that are written into the samples themselves.

A word is a run of one value, silence is about zero, so what is heard depends on the audio alone, as
with a real model: a cut, a lost sample or another utterance's slot shows in the text. It decodes
greedily from (window, tokens so far) to the next token, honours drafts by the engine's own rule
of acceptance, and checks that every step keeps what `engine.scheduling.steps` promises.
"""

from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import SAMPLES_PER_POSITION, Samples, positions_covering
from engine.config import EngineConfig
from engine.decoding.draft import accept
from engine.events import (
    AppendAudio,
    CancelUtterance,
    Command,
    EngineEvent,
    FinishUtterance,
    HypothesisUpdated,
    OpenUtterance,
    PauseUtterance,
    SegmentClosed,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
    UtteranceOptions,
)
from engine.metrics import EngineMetrics
from engine.scheduling.contexts import ContextPolicy
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import (
    AlignResult,
    AlignRow,
    AlignStep,
    BoundaryRow,
    DecodeStep,
    EncodeResult,
    EncodeStep,
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
from engine.scheduling.utterance import DecodeSetup
from engine.text.tokenizer import Tokenizer
from engine.text.vocabulary import NUM_TIMESTAMPS
from engine.traits import CheckpointTraits

Audio = NDArray[np.float32]
_Run = tuple[int, int, int]  # level, start, end

WORDS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("red", "green", "blue", "north", "south", "east", "west", "spring", "autumn", "winter"),
)
NOISE: Final = "<noise>"  # sends the decoder into a loop
MUMBLE: Final = "<mumble>"  # is decoded, but not with any confidence
POISON: Final = "<poison>"  # makes the model's figures not numbers
_STRANGE: Final = (NOISE, MUMBLE, POISON)

WORD_SAMPLES: Final = 4000  # 250 ms
GAP_SAMPLES: Final = 1600  # 100 ms: the least pause that the search for a cut sees as silent
_AUDIBLE: Final = 800  # of a word that the window's edge cuts off
_SENTENCE_GAP: Final = 4800

_STOP, _MURMUR, _LA = ".", " uh", " la"
_LEVELS: Final = 64  # sample values are multiples of its inverse, which float32 holds exactly

N_TEXT_CTX: Final = 448
_TRAINED: Final = CheckpointTraits(trimmed_context=True)
_SURE, _UNSURE, _INVENTED = -0.1, -4.0, -2.0


def say(*words: str, gap: int = GAP_SAMPLES) -> Audio:
    """Samples in which `words` are heard, each followed by `gap` samples of silence."""
    level = {word: index + 1 for index, word in enumerate(WORDS)}
    level |= {sound: -1 - index for index, sound in enumerate(_STRANGE)}
    parts = []
    for word in words:
        parts.append(np.full(WORD_SAMPLES, level[word] / _LEVELS, dtype=np.float32))
        parts.append(silence(gap))
    return np.concatenate(parts) if parts else silence(0)


def silence(count: int) -> Audio:
    """`count` samples of nothing."""
    return np.zeros(count, dtype=np.float32)


def hum(count: int) -> Audio:
    """`count` samples in which nothing is heard, though they are no silence."""
    return np.full(count, 0.2 / _LEVELS, dtype=np.float32)


@cache
def toy_tokenizer(num_languages: int = 1) -> Tokenizer:
    """Whisper's layout over single bytes and a token for each word; `en zh de ...` in order."""
    texts = [bytes([value]) for value in range(256)]
    texts += [f" {word}".encode() for word in WORDS] + [_MURMUR.encode(), _LA.encode()]
    lines = [f"{b64encode(text).decode()} {rank}" for rank, text in enumerate(texts)]
    with TemporaryDirectory() as directory:
        path = Path(directory) / "toy.tiktoken"
        path.write_text("\n".join(lines))
        n_vocab = len(texts) + 8 + num_languages + NUM_TIMESTAMPS
        return Tokenizer.load(path, n_vocab=n_vocab, is_multilingual=True)


@dataclass(frozen=True, slots=True)
class _Spoken:
    """One token and where it is heard, in samples of the window."""

    token: int
    logprob: float
    start: int
    end: int


@dataclass(slots=True)
class _Slot:
    """What the device would hold in one row."""

    generation: int = 0
    samples: Audio = field(default_factory=lambda: silence(0))
    runs: tuple[_Run, ...] = ()
    sampling: Sampling | None = None
    tokens: list[int] = field(default_factory=list)
    is_fresh: bool = False  # encoded, and nothing fed since


class FakeRunner:
    """Answers steps from what the windows say.

    `loops_below` is the temperature from which noise no longer ends in a loop. `language` is
    what is detected, where it may be. With `fail_next` the next step raises. `steps` are all
    that were run.
    """

    def __init__(
        self, tokenizer: Tokenizer, num_slots: int, max_batch: int, *, run_ahead: int = 0
    ) -> None:
        self.steps: list[Step] = []
        self._run_ahead = run_ahead
        self.fail_next = False
        self.loops_below = 9.0
        self.language = "en"
        self._tokenizer = tokenizer
        self._max_batch = max_batch
        self._slots = [_Slot() for _ in range(num_slots)]
        self._token_of = {
            tokenizer.token_bytes(token).decode(): token for token in range(256, tokenizer.eot)
        }
        (self._stop,) = tokenizer.encode(_STOP)

    def run(self, step: Step) -> StepResult:
        """Run one step, or raise as told."""
        self.steps.append(step)
        handles = step.slots if isinstance(step, DecodeStep) else [row.slot for row in step.rows]
        assert handles, "a step without rows"
        assert len({handle.index for handle in handles}) == len(handles), "a slot twice in a step"
        assert isinstance(step, EncodeStep) or len(handles) <= self._max_batch
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("told to fail")
        match step:
            case EncodeStep():
                return self._encode(step)
            case ExtendStep():
                return self._extend(step)
            case PrefillStep() | VerifyStep():
                return TokensResult(tuple(self._feed(row) for row in step.rows))
            case DecodeStep():
                return TokensResult(tuple(self._decode(slot) for slot in step.slots))
            case AlignStep():
                return AlignResult(tuple(self._align(row) for row in step.rows))

    def _encode(self, step: EncodeStep) -> EncodeResult:
        for row in step.rows:
            state = self._slots[row.slot.index]
            if state.generation != row.slot.generation:
                assert row.slot.generation > state.generation, "a slot of the past"
                state = _Slot()
            kept = len(state.samples)
            assert np.array_equal(row.samples[:kept], state.samples), "not the window it was"
            assert step.context >= positions_covering(len(row.samples)), "more audio than context"
            self._slots[row.slot.index] = replace(
                state,
                generation=row.slot.generation,
                samples=row.samples.copy(),
                runs=_runs(row.samples),
                is_fresh=True,
            )
        return EncodeResult(tuple(row.slot for row in step.rows))

    def _extend(self, step: ExtendStep) -> EncodeResult:
        """What a slot heard before stays as it was heard; only what lies behind `start` is new."""
        for row in step.rows:
            state = self._state(row.slot)
            kept = len(state.samples)
            assert np.array_equal(row.samples[:kept], state.samples), "not the window it was"
            assert 0 < row.start <= positions_covering(kept), "what lies between was never encoded"
            assert row.start + step.width >= positions_covering(len(row.samples))
            state.samples, state.runs = row.samples.copy(), _runs(row.samples)
            state.is_fresh = True
        return EncodeResult(tuple(row.slot for row in step.rows))

    def _state(self, slot: SlotHandle) -> _Slot:
        state = self._slots[slot.index]
        assert state.generation == slot.generation, "a slot that was not encoded"
        return state

    def _feed(self, row: PrefillRow | VerifyRow) -> TokenRow | LanguageRow:
        state, tokenizer = self._state(row.slot), self._tokenizer
        assert _start(row) > 0 or row.tokens[row.sot_index] == tokenizer.sot
        if isinstance(row, PrefillRow) and row.languages:
            told = tokenizer.languages[self.language]
            token = told if told in row.languages else row.languages[0]
            return LanguageRow(row.slot, token, nan if self._poisoned(state) else 0.9)
        if _start(row) == 0:
            assert len(row.tokens) >= row.sampling.begin
            state.tokens, state.sampling = list(row.tokens), row.sampling
        else:
            if state.is_fresh:  # what was fed before `start` stays, the rest is fed anew
                assert _start(row) < len(state.tokens), "not within what was fed"
                del state.tokens[_start(row) + 1 :]
                state.sampling = row.sampling
        state.is_fresh = False
        if _start(row) > 0:
            assert _start(row) == len(state.tokens) - 1, "not behind what was fed"
            assert row.tokens == (state.tokens[-1],)
            assert row.sampling == state.sampling
        draft = row.draft if isinstance(row, VerifyRow) else ()
        assert bool(draft) == isinstance(row, VerifyRow), "a verification of nothing"
        assert not draft or row.sampling.temperature == 0.0, "a draft for drawn tokens"
        predicted = [self._choose(state, draft[:count]) for count in range(len(draft) + 1)]
        accepted = accept(draft, [spoken.token for spoken in predicted])
        chosen = predicted[: accepted + 1]
        self._keep(state, chosen)
        return TokenRow(
            row.slot,
            tuple(spoken.token for spoken in chosen),
            tuple(spoken.logprob for spoken in chosen),
            tuple(spoken.start // SAMPLES_PER_POSITION for spoken in chosen),
            (0.05 if self._words(state) else 0.95) if _start(row) == 0 else None,
        )

    def _decode(self, slot: SlotHandle) -> TokenRow:
        state = self._state(slot)
        assert state.sampling is not None, "decoded before anything was fed"
        spoken = self._choose(state, ())
        self._keep(state, [spoken])
        return TokenRow(slot, (spoken.token,), (spoken.logprob,), ())

    def _keep(self, state: _Slot, chosen: Sequence[_Spoken]) -> None:
        if self._run_ahead and state.tokens[-1] == self._tokenizer.eot:
            return  # launched before the end was known
        assert state.tokens[-1] != self._tokenizer.eot, "decoded behind the end of text"
        state.tokens += [spoken.token for spoken in chosen]
        assert len(state.tokens) <= N_TEXT_CTX + 1, "more tokens than the model has places"

    def _align(self, row: AlignRow) -> BoundaryRow:
        state = self._state(row.slot)
        text = row.tokens[row.num_forced : -1]
        assert row.tokens[-1] == self._tokenizer.eot
        assert row.num_positions == positions_covering(len(state.samples))
        spoken = self._spoken(state, Sampling(0, timestamps=False))
        starts = [item.start for item in spoken[: len(text)]]
        starts += [starts[-1] if starts else 0] * (len(text) - len(starts))
        end = max((item.end for item in spoken[: len(text)]), default=0)
        boundaries = [start // SAMPLES_PER_POSITION for start in (*starts, end)]
        return BoundaryRow(row.slot, tuple(boundaries))

    # What is heard.

    def _choose(self, state: _Slot, draft: Sequence[int]) -> _Spoken:
        """The next token behind the tokens so far and `draft`."""
        sampling = state.sampling
        assert sampling is not None
        at = len(state.tokens) - sampling.begin + len(draft)
        spoken = self._spoken(state, sampling)
        if at < len(spoken):
            chosen = spoken[at]
        else:
            last = spoken[-1] if spoken else None
            logprob = _INVENTED if not self._words(state) else _SURE
            end = len(state.samples) if last is None else last.end
            chosen = _Spoken(self._tokenizer.eot, logprob, end, end)
        return chosen if not self._poisoned(state) else _Spoken(chosen.token, nan, 0, 0)

    def _spoken(self, state: _Slot, sampling: Sampling) -> list[_Spoken]:
        """All tokens that the window says."""
        runs = self._words(state)
        end = len(state.samples)
        if not runs:
            runs = [_Spoken(self._token_of[_MURMUR], _INVENTED, 0, end)]
        looping = [run for run in runs if run.token == self._token_of[_LA]]
        if looping and sampling.temperature < self.loops_below:
            return runs[: runs.index(looping[0])] + [looping[0]] * N_TEXT_CTX
        if not sampling.timestamps:
            return [*runs, _Spoken(self._stop, runs[-1].logprob, runs[-1].end, runs[-1].end)]
        return list(self._with_timestamps(runs, end))

    def _with_timestamps(self, runs: Sequence[_Spoken], end: int) -> Iterator[_Spoken]:
        """Timestamps around what long pauses set apart; none behind what is still going on."""

        def timestamp(at: int) -> _Spoken:
            token = self._tokenizer.timestamp_begin + -(-at // SAMPLES_PER_POSITION)
            return _Spoken(token, _SURE, at, at)

        for index, run in enumerate(runs):
            before = runs[index - 1].end if index else -_SENTENCE_GAP
            after = runs[index + 1].start if index + 1 < len(runs) else end
            if run.start - before >= _SENTENCE_GAP:
                yield timestamp(run.start)
            yield run
            if after - run.end >= _SENTENCE_GAP:
                yield timestamp(run.end)

    def _words(self, state: _Slot) -> list[_Spoken]:
        """The words of a window; one that its edge cuts off is a murmur, or nothing."""
        words = []
        for level, start, end in state.runs:
            text, logprob = _MURMUR, _SURE
            if level < 0:
                text, logprob = (_LA, _SURE) if level == -1 else (_MURMUR, _UNSURE)
            elif end - start >= WORD_SAMPLES:
                text = f" {WORDS[level - 1]}"
            if end - start >= _AUDIBLE:
                words.append(_Spoken(self._token_of[text], logprob, start, end))
        return words

    def _poisoned(self, state: _Slot) -> bool:
        poison = -1 - _STRANGE.index(POISON)
        return any(level == poison for level, _, _ in state.runs)


def _start(row: PrefillRow | VerifyRow) -> int:
    return row.start if isinstance(row, VerifyRow) else 0


def _runs(samples: Audio) -> tuple[_Run, ...]:
    """Every run of one level but zero."""
    levels = np.round(samples * _LEVELS).astype(np.int64)
    changes = (np.flatnonzero(np.diff(levels)) + 1).tolist()
    edges = [0, *changes, len(levels)]
    return tuple(
        (int(levels[start]), start, end)
        for start, end in pairwise(edges)
        if start < end and levels[start] != 0
    )


class EventRules:
    """What every consumer of events may rely on, asserted with each of them."""

    def __init__(self) -> None:
        self._segment: dict[UtteranceId, int] = {}
        self._stable: dict[UtteranceId, str] = {}
        self._end: dict[UtteranceId, int] = {}
        self.ended: set[UtteranceId] = set()
        self.cancelled: set[UtteranceId] = set()

    def take(self, event: EngineEvent) -> None:
        """The next event."""
        utterance = event.utterance_id
        assert utterance not in self.ended, f"{event} behind the end"
        assert utterance not in self.cancelled, f"{event} of a cancelled utterance"
        if isinstance(event, UtteranceFinished | UtteranceFailed):
            self.ended.add(utterance)
            return
        assert event.segment == self._segment.get(utterance, 0)
        assert event.text.startswith(self._stable.get(utterance, ""))
        assert event.start == self._end.get(utterance, event.start) <= event.end
        if isinstance(event, HypothesisUpdated):
            assert event.text.startswith(event.stable_text)
            assert event.stable_text.startswith(self._stable.get(utterance, ""))
            assert event.start <= event.stable_end <= event.end
            self._stable[utterance] = event.stable_text
            return
        for word in event.words:
            assert event.start <= word.start <= word.end <= event.end
        self._segment[utterance] = event.segment + 1
        self._stable[utterance] = ""
        self._end[utterance] = event.end


class Rig:
    """A scheduler and a fake runner in the engine's loop, one step at a time.

    Every event is checked against `EventRules`, and the slots whenever there is nothing to do.
    """

    def __init__(
        self,
        *,
        num_slots: int = 4,
        traits: CheckpointTraits = _TRAINED,
        num_languages: int = 1,
        run_ahead: int = 0,
        **config: Any,
    ) -> None:
        settings = EngineConfig(**config).resolve("cpu")
        tokenizer = toy_tokenizer(num_languages)
        contexts = ContextPolicy.of(settings, trained_trimmed=traits.trimmed_context)
        setup = DecodeSetup(settings, tokenizer, contexts, traits, N_TEXT_CTX)
        self.metrics = EngineMetrics()
        self.tokenizer = tokenizer
        self.scheduler = Scheduler(setup, num_slots, self.metrics)
        self.now = 0.0  # the clock that the scheduler is told
        self.step_s = 0.0  # how long every step takes
        self.runner = FakeRunner(tokenizer, num_slots, settings.max_batch, run_ahead=run_ahead)
        self.rules = EventRules()
        self.events: list[EngineEvent] = []
        self._run_ahead = run_ahead
        self._in_flight: deque[tuple[Step, StepResult]] = deque()

    def send(self, command: Command) -> list[EngineEvent]:
        """Hand over a command; returns what it brought at once."""
        events = self.scheduler.handle(command, self.now)
        if isinstance(command, CancelUtterance):
            self.rules.cancelled.add(command.utterance_id)
        return self._take(events)

    def open(self, number: int = 1, start: int = 0, **options: Any) -> None:
        """Open utterance `number`."""
        self.send(OpenUtterance(UtteranceId(number), Samples(start), UtteranceOptions(**options)))

    def append(self, samples: Audio, number: int = 1) -> None:
        """More audio."""
        self.send(AppendAudio(UtteranceId(number), samples))

    def pause(self, number: int = 1) -> None:
        """The end looks likely."""
        self.send(PauseUtterance(UtteranceId(number)))

    def finish(self, number: int = 1) -> list[EngineEvent]:
        """No more audio."""
        return self.send(FinishUtterance(UtteranceId(number)))

    def cancel(self, number: int = 1) -> None:
        """Nobody waits any more."""
        self.send(CancelUtterance(UtteranceId(number)))

    def step(self, between: Callable[[], None] | None = None) -> Step | None:
        """Launch a step, and take the result of the oldest; `between` is called before that.

        None where there is nothing to do; otherwise the step that was launched or taken.
        """
        step = self.scheduler.next_step(self.now)
        if step is not None:
            try:
                self._in_flight.append((step, self.runner.run(step)))
            except RuntimeError as exc:
                self._take(self.scheduler.fail(step, str(exc)))
                return step
            self.now += self.step_s
        if between is not None:
            between()
        if self._in_flight and (step is None or len(self._in_flight) > self._run_ahead):
            taken, result = self._in_flight.popleft()
            self._take(self.scheduler.apply(result))
            self.scheduler.charge(self.step_s)
            return step or taken
        if step is None:
            self.scheduler.check()
        return step

    def settle(self, most: int = 3000) -> list[EngineEvent]:
        """Run steps until there is nothing to do; returns what came of them."""
        before = len(self.events)
        for _ in range(most):
            if self.step() is None:
                return self.events[before:]
        raise AssertionError(f"still busy after {most} steps")

    def _take(self, events: list[EngineEvent]) -> list[EngineEvent]:
        for event in events:
            self.rules.take(event)
        self.events += events
        return events

    def partials(self, number: int = 1) -> list[HypothesisUpdated]:
        """All partials of an utterance."""
        updates = (event for event in self.events if isinstance(event, HypothesisUpdated))
        return [event for event in updates if event.utterance_id == number]

    def finals(self, number: int = 1) -> list[SegmentClosed]:
        """All finals of an utterance."""
        closed = (event for event in self.events if isinstance(event, SegmentClosed))
        return [event for event in closed if event.utterance_id == number]

    def text(self, number: int = 1) -> str:
        """The words of all finals, without full stops."""
        return " ".join(event.text for event in self.finals(number)).replace(".", "")
