"""Decides which step runs next, over all utterances. Leaves running it to runtime.runner.

Two rules make the order. Finals go before early finals and those before partials, the longest
waiting first. And of one rank, what brings rows into the decode batch goes before decoding: feed
first, then encode and decode in turn, so that a decode step never waits for more than one slice
of encoding; a draft that is verified in the midst of decoding counts as decoding. Rows of any
rank join a prefill, verify or decode step, because there a further row costs next to nothing;
where not all fit, those of the first rank are the ones that do.

Where the device has not time for every partial that was asked for, `load` widens their intervals.

A step may be launched before the results of earlier ones are taken. A job with a step in flight is
left alone, but that it may be decoded once more on the device's own state, so that the device need
not wait for the host between two tokens. Results are matched to the jobs that were launched: what
comes for a job that has ended meanwhile finds nobody.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from engine.audio.units import SAMPLE_RATE, Positions, Samples, seconds_from_samples
from engine.decoding.draft import accept
from engine.errors import ConfigError, StepError
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
)
from engine.metrics import EngineMetrics
from engine.scheduling.job import Job, Kind, Phase
from engine.scheduling.load import Ask, LoadMeter, share_out
from engine.scheduling.slices import SliceMeter
from engine.scheduling.slots import SlotHandle, SlotPool
from engine.scheduling.steps import (
    AlignStep,
    BoundaryRow,
    DecodeStep,
    EncodeResult,
    EncodeRow,
    EncodeStep,
    ExtendRow,
    ExtendStep,
    LanguageRow,
    PrefillRow,
    PrefillStep,
    Step,
    StepResult,
    TokenRow,
    VerifyRow,
    VerifyStep,
    slots_of,
)
from engine.scheduling.utterance import DecodeSetup, Utterance

# Who is served first. A cut keeps its utterance from being heard on, so it ranks with finals.
_RANKS: Final = ((Kind.FINAL, Kind.CUT), (Kind.EARLY,), (Kind.PARTIAL,))
_RANK_OF: Final = {kind: rank for rank, kinds in enumerate(_RANKS) for kind in kinds}
_SHARING_S: Final = 0.25  # between two looks at who gets how many partials; people's pauses are


@dataclass(frozen=True, slots=True, eq=False)
class _Launch:
    """A step and whose it is: the job of each row, at which attempt, and what it was for.

    Like no other, even where two steps hold the same: audio cannot be compared.
    """

    step: Step
    jobs: tuple[Job, ...]
    attempts: tuple[int, ...]
    kinds: tuple[Kind, ...]


class Scheduler:
    """Commands and results in, steps and events out. Touched only by the engine thread.

    An utterance keeps its slot between decodes, so that its mel frames need not be computed
    again; one that rests gives it up where somebody needs it.
    """

    def __init__(self, setup: DecodeSetup, num_slots: int, metrics: EngineMetrics) -> None:
        self._setup = setup
        self._pool = SlotPool(num_slots)
        self._metrics = metrics
        self._utterances: dict[UtteranceId, Utterance] = {}
        # Those that want a job, since when; the longest waiting first.
        self._waiting: dict[UtteranceId, tuple[Kind, float]] = {}
        self._holders: dict[SlotHandle, Utterance] = {}  # of slots, longest at rest first
        self._launched: deque[_Launch] = deque()  # oldest first
        self._uncharged: deque[_Launch] = deque()
        self._decode_is_due = False  # a slice was encoded since the last decode step
        self._verified_last = False  # drafts had the last turn of decoding
        self._load = LoadMeter()
        config = setup.config
        self._slices = SliceMeter(
            config.encode_slice_ms / 1000, config.encode_slice, config.max_batch
        )
        self._share_at = 0.0  # when intervals are looked at next
        self._now = 0.0

    @property
    def num_utterances(self) -> int:
        """Utterances that have not ended."""
        return len(self._utterances)

    def handle(self, command: Command, now: float) -> list[EngineEvent]:
        """Take a command. One for an utterance that has ended already is late, not wrong.

        `now` is the reading, in seconds, of a clock that never goes back.
        """
        self._now = now
        if isinstance(command, OpenUtterance):
            if command.utterance_id in self._utterances:
                raise ValueError(f"utterance {command.utterance_id} is open already")
            try:
                opened = Utterance(command, self._setup)
            except ConfigError as exc:
                return [UtteranceFailed(command.utterance_id, str(exc))]
            self._utterances[command.utterance_id] = opened
            return []
        utterance = self._utterances.get(command.utterance_id)
        if utterance is None:
            return []
        events: list[EngineEvent] = []
        match command:
            case AppendAudio():
                self._load.hear(len(command.samples) / SAMPLE_RATE)
                utterance.append(command.samples)
            case PauseUtterance():
                utterance.pause()
            case FinishUtterance():
                events = utterance.finish()
            case CancelUtterance():
                self._remove(utterance)
                return []
        return self._settle(utterance, events)

    def next_step(self, now: float) -> Step | None:
        """The step to run at the reading `now`, or None until another command comes."""
        self._now = now
        self._load.advance(now)
        if now >= self._share_at:
            self._share_at = now + _SHARING_S
            self._share_partials()
        live = [it for it in self._holders.values() if it.job and it.job.due]
        live.sort(key=lambda utterance: _RANK_OF[_job(utterance).kind])
        steps = (self._step_of_rank(live, rank) for rank in range(len(_RANKS)))
        step = next((step for step in steps if step is not None), None)
        if step is not None:
            jobs = tuple(_job(self._holders[slot]) for slot in slots_of(step))
            for job in jobs:
                job.launched = Phase.DECODE if isinstance(step, DecodeStep) else job.phase
                job.in_flight += 1
            attempts = tuple(job.attempt for job in jobs)
            self._launched.append(_Launch(step, jobs, attempts, tuple(job.kind for job in jobs)))
        return step

    def apply(self, result: StepResult) -> list[EngineEvent]:
        """Take the result of the oldest step that was launched.

        Rows of jobs that have ended find nobody.
        """
        launch = self._launched.popleft()
        self._uncharged.append(launch)
        events: list[EngineEvent] = []
        verified = isinstance(launch.step, VerifyStep)
        rows = zip(launch.jobs, launch.attempts, _rows_of(result), strict=True)
        for job, attempt, row in rows:
            job.in_flight -= 1
            utterance = self._holders.get(row if isinstance(row, SlotHandle) else row.slot)
            if utterance is None or utterance.job is not job or job.attempt != attempt:
                continue
            match row:
                case SlotHandle():
                    utterance.encoded()
                case LanguageRow():
                    events += self._take_language(utterance, row)
                case TokenRow() if job.phase in (Phase.FEED, Phase.DECODE):
                    events += self._take_tokens(utterance, row, verified=verified)
                case TokenRow():
                    pass  # decoded ahead of the end
                case BoundaryRow():
                    events += self._settle(utterance, utterance.aligned(row.boundaries))
        return events

    def charge(self, elapsed_s: float) -> None:
        """Write the device's time for the oldest uncharged step down to what it was for.

        Every row alike.
        """
        launch = self._uncharged.popleft()
        match launch.step:
            case EncodeStep(rows, width) | ExtendStep(rows, width):
                self._slices.observe(width, len(rows), elapsed_s)
            case _:
                pass
        for kind in launch.kinds:
            share = elapsed_s / len(launch.kinds)
            if kind is Kind.PARTIAL:
                self._load.spend_on_partial(share)
            else:
                self._load.spend_on_final(share)

    def fail(self, step: Step, message: str) -> list[EngineEvent]:
        """A step could not be run: its own utterances end, others go on."""
        launch = next(it for it in self._launched if it.step is step)
        self._launched.remove(launch)
        events: list[EngineEvent] = []
        for job, slot in zip(launch.jobs, slots_of(step), strict=True):
            job.in_flight -= 1
            utterance = self._holders.get(slot)
            if utterance is not None and utterance.job is job:
                events += self._fail(utterance, message)
        return events

    def check(self) -> None:
        """No slot is lost, doubled or held by somebody who has ended."""
        self._pool.check()
        if self._launched:
            raise AssertionError(f"{len(self._launched)} steps are in flight at rest")
        held = self._pool.num_slots - self._pool.num_free
        owners = {id(utterance) for utterance in self._utterances.values() if utterance.slot}
        if held != len(self._holders) or owners != set(map(id, self._holders.values())):
            raise AssertionError(
                f"{held} slots are held, {len(self._holders)} known, {len(owners)} owned"
            )

    # Choosing a step.

    def _step_of_rank(self, live: Sequence[Utterance], rank: int) -> Step | None:
        ranked = [it for it in live if _RANK_OF[_job(it).kind] == rank]
        decoding = [it for it in ranked if _job(it).is_decoding]
        feeding = [it for it in ranked if _job(it).due in _FEEDING and not _job(it).is_decoding]
        if feeding:
            return self._feed_step(feeding[0], live)
        if not (decoding and self._decode_is_due):
            again = [it for it in ranked if _job(it).due is Phase.ENCODE]
            step = self._encode_step(again, rank)
            if step is not None:
                self._decode_is_due = True
                return step
        if not decoding:
            return None
        self._decode_is_due = False
        drafted = [it for it in decoding if _job(it).due is Phase.FEED]
        # In turn: neither drafts nor single tokens wait for the end of the others.
        self._verified_last = bool(drafted) and not (
            self._verified_last and len(drafted) < len(decoding)
        )
        if self._verified_last:
            return self._feed_step(drafted[0], live)
        rows = [_slot(it) for it in live if _job(it).due is Phase.DECODE]
        del rows[self._setup.config.max_batch :]
        return DecodeStep(tuple(rows))

    def _feed_step(self, first: Utterance, live: Sequence[Utterance]) -> Step:
        """The multi-token pass that `first` needs, with everybody who needs the same kind."""

        def kind(utterance: Utterance) -> type[Step] | None:
            job = _job(utterance)
            if job.due is Phase.ALIGN:
                return AlignStep
            if job.due not in _FEEDING:
                return None
            return VerifyStep if job.due is Phase.FEED and job.draft else PrefillStep

        wanted = kind(first)
        others = (it for it in live if it is not first and kind(it) is wanted)
        batch = [first, *islice(others, self._setup.config.max_batch - 1)]
        if wanted is AlignStep:
            return AlignStep(tuple(it.align_row(_slot(it)) for it in batch))
        rows = [self._feed_row(it) for it in batch]
        if wanted is VerifyStep:
            return VerifyStep(tuple(row for row in rows if isinstance(row, VerifyRow)))
        return PrefillStep(tuple(row for row in rows if isinstance(row, PrefillRow)))

    def _feed_row(self, utterance: Utterance) -> PrefillRow | VerifyRow:
        job = _job(utterance)
        if job.phase is Phase.DETECT:
            sot = (self._setup.tokenizer.sot,)
            candidates = utterance.language_candidates()
            return PrefillRow(_slot(utterance), sot, 0, job.sampling, candidates)
        return job.feed_row(_slot(utterance))

    def _encode_step(self, again: Iterable[Utterance], rank: int) -> Step | None:
        """One slice of encoding: rows of one shape, the longest waiting first."""
        waiting = [
            (self._utterances[utterance_id], kind)
            for utterance_id, (kind, _) in self._waiting.items()
            if _RANK_OF[kind] == rank
        ]
        planned = [(it, _job(it)) for it in again] + [(it, it.plan(kind)) for it, kind in waiting]
        rows: list[EncodeRow | ExtendRow] = []
        shape: tuple[bool, Positions, bool] | None = None
        most = 1
        for utterance, job in planned:
            encoding = utterance.encoding_of(job)
            wanted = encoding.start > 0, encoding.width, utterance.keeps(job)
            if shape not in (None, wanted):
                continue
            slot = utterance.slot or self._take_slot(utterance)
            if slot is None:
                continue  # every slot is at work
            if shape is None:
                shape, most = wanted, self._slices.rows(encoding.width)
            utterance.job = job
            if job.kind is Kind.PARTIAL:
                self._load.begin_partial(encoding.width)
            if (waited := self._waiting.pop(utterance.id, None)) is not None:
                self._metrics.record_wait(job.kind.name.lower(), self._now - waited[1])
            samples = utterance.samples_of(job)
            if encoding.start > 0:
                rows.append(ExtendRow(slot, samples, encoding.start))
            else:
                rows.append(EncodeRow(slot, samples))
            if len(rows) == most:
                break
        if shape is None:
            return None
        extends, width, keep = shape
        if extends:
            return ExtendStep(tuple(row for row in rows if isinstance(row, ExtendRow)), width)
        return EncodeStep(tuple(row for row in rows if isinstance(row, EncodeRow)), width, keep)

    def _take_slot(self, utterance: Utterance) -> SlotHandle | None:
        """A free slot, or that of whoever has rested longest."""
        slot = self._pool.acquire()
        if slot is None:
            resting = next((it for it in self._holders.values() if it.job is None), None)
            if resting is None:
                return None
            self._give_back(resting)
            slot = self._pool.acquire()
        if slot is not None:
            utterance.slot = slot
            self._holders[slot] = utterance
        return slot

    # Sharing the device.

    def _share_partials(self) -> None:
        """Set the interval of everybody who speaks."""
        speaking = [it for it in self._utterances.values() if it.is_speaking]
        cost = self._load.s_per_position
        asks = [
            Ask(cost * it.num_positions, seconds_from_samples(it.options.interim_interval))
            for it in speaking
        ]
        shares = share_out(asks, self._load.partial_share)
        for utterance, interval_s in zip(speaking, shares.intervals_s, strict=True):
            utterance.interval = Samples(round(interval_s * SAMPLE_RATE))
        self._metrics.rung = shares.rung
        widest = max(shares.intervals_s, default=0.0)
        self._metrics.partial_interval_s = widest if shares.rung else 0.0
        self._metrics.s_per_speech_s = self._load.s_per_speech_s

    # Taking a result.

    def _take_language(self, utterance: Utterance, row: LanguageRow) -> list[EngineEvent]:
        try:
            utterance.detected(row.token, row.probability)
        except StepError as exc:
            return self._fail(utterance, str(exc))
        return []

    def _take_tokens(
        self, utterance: Utterance, row: TokenRow, *, verified: bool
    ) -> list[EngineEvent]:
        job = _job(utterance)
        self._metrics.tokens += len(row.tokens)
        if verified:
            self._metrics.drafted += len(job.draft)
            self._metrics.accepted += accept(job.draft, row.tokens)
        try:
            job.advance(row)
        except StepError as exc:
            return self._fail(utterance, str(exc))
        if job.phase is not Phase.DONE:
            return []
        attempt = job.attempt
        events = utterance.decoded()
        self._metrics.retries += job.attempt - attempt
        return self._settle(utterance, events)

    def _settle(self, utterance: Utterance, events: list[EngineEvent]) -> list[EngineEvent]:
        """Put an utterance where it now belongs: waiting, at rest, or gone."""
        for event in events:
            self._metrics.partials += isinstance(event, HypothesisUpdated)
            self._metrics.finals += isinstance(event, SegmentClosed)
            if isinstance(event, UtteranceFinished):
                self._remove(utterance)
                return events
        if any(isinstance(event, SegmentClosed) for event in events):
            # Cut: what the slot holds of the old window is no beginning of the new one.
            self._give_back(utterance)
        if utterance.job is None and utterance.slot is not None:
            self._holders[utterance.slot] = self._holders.pop(utterance.slot)
        wanted = utterance.wants()
        before = self._waiting.get(utterance.id)
        if wanted is not (before and before[0]):
            self._waiting.pop(utterance.id, None)
            if wanted is not None:
                self._waiting[utterance.id] = wanted, self._now
        return events

    def _fail(self, utterance: Utterance, message: str) -> list[EngineEvent]:
        self._metrics.failures += 1
        self._remove(utterance)
        return [UtteranceFailed(utterance.id, message)]

    def _remove(self, utterance: Utterance) -> None:
        del self._utterances[utterance.id]
        self._waiting.pop(utterance.id, None)
        self._give_back(utterance)

    def _give_back(self, utterance: Utterance) -> None:
        if utterance.slot is not None:
            del self._holders[utterance.slot]
            self._pool.release(utterance.slot)
            utterance.release_slot()


_FEEDING = frozenset({Phase.DETECT, Phase.FEED, Phase.ALIGN})


def _rows_of(
    result: StepResult,
) -> Sequence[SlotHandle | TokenRow | LanguageRow | BoundaryRow]:
    return result.slots if isinstance(result, EncodeResult) else result.rows


def _job(utterance: Utterance) -> Job:
    if utterance.job is None:
        raise AssertionError(f"utterance {utterance.id} has no live job")
    return utterance.job


def _slot(utterance: Utterance) -> SlotHandle:
    if utterance.slot is None:
        raise AssertionError(f"utterance {utterance.id} holds no slot")
    return utterance.slot
