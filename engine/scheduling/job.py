"""A job: one decode of one window, from encode to hypothesis, possibly in several attempts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from math import isfinite
from typing import Final

from engine.audio.units import Samples
from engine.decoding.draft import propose
from engine.decoding.hypothesis import Hypothesis, Token
from engine.decoding.quality import Verdict, loop_start
from engine.errors import StepError
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import PrefillRow, Sampling, TokenRow, VerifyRow


class Kind(Enum):
    """What the hypothesis is for. An early final is computed at a pause that may be the end."""

    FINAL = auto()
    CUT = auto()
    EARLY = auto()
    PARTIAL = auto()


class Phase(Enum):
    """The step that a job needs next."""

    ENCODE = auto()
    DETECT = auto()
    FEED = auto()
    DECODE = auto()
    ALIGN = auto()
    DONE = auto()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to decode a window; the ladder of a final is a list of them."""

    trimmed: bool
    temperature: float


@dataclass(frozen=True, slots=True)
class Limits:
    """When a decode ends without `eot`."""

    max_tokens: int
    eot: int
    repetition_guard: bool


_NOT_BEGUN: Final = Sampling(begin=0, timestamps=False)
_NO_LIMITS: Final = Limits(max_tokens=0, eot=0, repetition_guard=False)


@dataclass(slots=True)
class Job:
    """The state of one decode. Touched only by the engine thread.

    `forced` is fed before anything is chosen: prompt, `sot` sequence, stable prefix. `tokens`
    is the hypothesis so far and begins with the stable prefix. `hypothesis` and `verdict` are
    what the attempts came to. `resumes`: what the slot holds of the tokens before the last
    stable one is used again.
    """

    kind: Kind
    num_samples: Samples
    attempts: Sequence[Attempt]
    phase: Phase = Phase.ENCODE
    attempt: int = 0
    use_prompt: bool = True
    forced: tuple[int, ...] = ()
    sot_index: int = 0
    sampling: Sampling = _NOT_BEGUN
    limits: Limits = _NO_LIMITS
    previous: tuple[int, ...] = ()
    draft: tuple[int, ...] = ()
    tokens: list[Token] = field(default_factory=list)
    no_speech_prob: float = 0.0
    eot_logprob: float = 0.0
    complete: bool = False
    looped: bool = False
    fed: bool = False
    resumes: bool = False
    num_stable: int = 0
    candidates: list[tuple[Hypothesis, bool]] = field(default_factory=list)
    hypothesis: Hypothesis | None = None
    verdict: Verdict = Verdict.KEEP
    in_flight: int = 0  # steps launched for it whose result is not there yet
    launched: Phase = Phase.DONE  # the newest of them

    @property
    def due(self) -> Phase | None:
        """The step that may be launched for it now, if any.

        With one pass in flight that is one token more, which the device decodes from its own
        state: if the result ends the job the token finds nobody, and if it brings a draft the
        token is what decoding would have said all the same.
        """
        if self.in_flight == 0:
            return self.phase
        goes_on = self.phase is Phase.DECODE or self.phase is self.launched is Phase.FEED
        room = self.limits.max_tokens - len(self.tokens) - len(self.draft)
        return Phase.DECODE if goes_on and self.in_flight == 1 and room >= 2 else None

    @property
    def current(self) -> Attempt:
        """The attempt in progress."""
        return self.attempts[self.attempt]

    @property
    def is_decoding(self) -> bool:
        """Whether it goes on from tokens it has chosen, one by one or by a draft."""
        return self.due is Phase.DECODE or (self.due is Phase.FEED and self.fed)

    def begin(
        self,
        *,
        prompt: tuple[int, ...],
        sot_sequence: tuple[int, ...],
        stable: tuple[Token, ...],
        previous: tuple[int, ...],
        timestamps: bool,
        limits: Limits,
        fed: tuple[int, ...] = (),
    ) -> None:
        """Start the current attempt, its encode done; `previous` is where drafts come from.

        `fed` are the tokens that the slot holds from an earlier decode and that may stay.
        """
        self.sot_index = len(prompt)
        begin = len(prompt) + len(sot_sequence)
        self.forced = prompt + sot_sequence + tuple(token.id for token in stable)
        self.sampling = Sampling(
            begin, timestamps, self.current.temperature, seed=self.num_samples * 8 + self.attempt
        )
        self.limits = limits
        self.tokens = list(stable)
        self.num_stable = len(stable)
        self.eot_logprob = 0.0
        self.complete = self.looped = self.fed = False
        self.previous = previous if self.current.temperature == 0.0 else ()
        self.phase = Phase.FEED
        self._propose()
        held = bool(stable) and fed[: len(self.forced)] == self.forced
        self.resumes = held and bool(self.draft)

    def feed_row(self, slot: SlotHandle) -> PrefillRow | VerifyRow:
        """The pass over more than one token that this job needs: the forced ones, or a draft."""
        if not self.draft:
            return PrefillRow(slot, self.forced, self.sot_index, self.sampling)
        start, tokens = 0, self.forced
        if self.fed or self.resumes:
            start, tokens = self.sampling.begin + len(self.tokens) - 1, (self.tokens[-1].id,)
        return VerifyRow(slot, start, tokens, self.draft, self.sot_index, self.sampling)

    def advance(self, row: TokenRow) -> None:
        """Take what a step chose for this job; afterwards it needs another step or is DONE.

        Raises StepError where the model's figures are not numbers.
        """
        self.fed = True
        if row.no_speech_prob is not None:
            self.no_speech_prob = require_finite(row.no_speech_prob)
        position = self.tokens[-1].position if self.tokens else 0
        ids = [token.id for token in self.tokens]
        for index, (token, logprob) in enumerate(zip(row.tokens, row.logprobs, strict=True)):
            require_finite(logprob)
            if row.positions:
                position = row.positions[index]
            if token == self.limits.eot:
                self.eot_logprob, self.complete = logprob, True
                self.phase = Phase.DONE
                return
            self.tokens.append(Token(token, logprob, position))
            ids.append(token)
            # Looked for behind every token, so that an accepted draft ends where decoding would.
            if self.limits.repetition_guard and (start := loop_start(ids)) is not None:
                del self.tokens[max(start, self.num_stable) :]  # what was promised stays
                self.looped = True
                self.phase = Phase.DONE
                return
        if len(self.tokens) >= self.limits.max_tokens:
            self.phase = Phase.DONE
            return
        self._propose()
        self.phase = Phase.FEED if self.draft else Phase.DECODE

    def result(self) -> Hypothesis:
        """The hypothesis of the attempt that has just ended."""
        return Hypothesis(
            tuple(self.tokens),
            self.num_samples,
            self.no_speech_prob,
            self.eot_logprob,
            self.current.temperature,
            self.complete,
        )

    def retry(self) -> bool:
        """Go on to the next attempt, if there is one; drop the prompt after a loop."""
        if self.attempt + 1 == len(self.attempts):
            return False
        before = self.current
        self.attempt += 1
        self.use_prompt = self.use_prompt and not self.looped
        encoded = self.current.trimmed == before.trimmed
        self.phase = Phase.FEED if encoded else Phase.ENCODE
        return True

    def _propose(self) -> None:
        """Offer the rest of the previous hypothesis, as far as it still may be emitted."""
        self.draft = ()
        if self.previous:
            draft = propose(self.previous, [token.id for token in self.tokens])
            self.draft = draft[: max(0, self.limits.max_tokens - len(self.tokens) - 1)]


def require_finite(value: float) -> float:
    """`value`, which the model computed; raises StepError where it is not a finite number."""
    if not isfinite(value):
        raise StepError(f"the model returned {value} where a finite number is due")
    return value
