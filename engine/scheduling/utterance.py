"""One utterance: its window, its jobs, its stable prefix and the segments it becomes.

Decides what an utterance needs next and what a finished decode means for it. Which utterance's
need is served first is the scheduler's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import exp
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import Positions, Samples, positions_covering, seconds_from_samples
from engine.audio.window import Window
from engine.config import EngineConfig
from engine.decoding.cut import TimedWord, choose_cut
from engine.decoding.hypothesis import Hypothesis, HypothesisWord, Token, attach, end_of
from engine.decoding.quality import Verdict, compression_ratio, judge
from engine.decoding.spans import parse_spans
from engine.decoding.stable_prefix import StablePrefix
from engine.decoding.words import merge_punctuation, time_words
from engine.events import (
    EngineEvent,
    HypothesisUpdated,
    OpenUtterance,
    SegmentClosed,
    TimestampSpan,
    UtteranceFinished,
    Word,
)
from engine.scheduling.contexts import ContextPolicy, Encoding
from engine.scheduling.job import Attempt, Job, Kind, Limits, Phase, require_finite
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import AlignRow
from engine.text.detokenizer import text_of
from engine.text.tokenizer import Tokenizer
from engine.traits import CheckpointTraits

_PROMPT_TEMPERATURE: Final = 0.5  # text drawn above it is no prompt (openai/whisper transcribe.py)


@dataclass(frozen=True, slots=True)
class Language:
    """A language and how sure the model was; certain when it was told."""

    code: str
    probability: float


@dataclass(frozen=True, slots=True)
class DecodeSetup:
    """What every utterance of an engine shares."""

    config: EngineConfig
    tokenizer: Tokenizer
    contexts: ContextPolicy
    traits: CheckpointTraits
    n_text_ctx: int


class Utterance:
    """The scheduler's unit of work; `slot` and `job` are the scheduler's to set.

    Raises ConfigError for a language or task that the model does not have.

    Touched only by the engine thread.
    """

    def __init__(self, command: OpenUtterance, setup: DecodeSetup) -> None:
        self.id = command.utterance_id
        self.options = command.options
        self.slot: SlotHandle | None = None
        self.job: Job | None = None
        self.interval = command.options.interim_interval  # in force; the scheduler widens it
        self._setup = setup
        self._max_segment = Samples(min(self.options.max_segment, setup.traits.max_window))
        self._window = Window(command.start)
        self._segment = 0
        self._prompt = command.options.prompt
        known = setup.tokenizer.languages
        for code in (self.options.language or next(iter(known)), *self.options.languages):
            setup.tokenizer.forced_prefix(code, self.options.task, timestamps=True)
        self._language = self._told_language()
        self._guessed: Language | None = None
        self._paused = False
        self._finished = False
        self._begin_segment(())

    def _told_language(self) -> Language | None:
        """What the client said, or the only one there is."""
        if self.options.language is not None:
            return Language(self.options.language, 1.0)
        allowed = self.options.languages or tuple(self._setup.tokenizer.languages)
        return Language(allowed[0], 1.0) if len(allowed) == 1 else None

    def _begin_segment(self, previous: tuple[int, ...]) -> None:
        room = min(self._setup.config.cut_room, self._max_segment // 2)
        self._stable = StablePrefix(
            self._setup.config.commit_guard, Samples(self._max_segment - room)
        )
        self._previous = previous
        self._covered = Samples(0)
        self._early: SegmentClosed | None = None
        self._forget()

    def release_slot(self) -> None:
        """The slot is somebody else's now, with all that it held."""
        self.slot = None
        self._forget()

    def _forget(self) -> None:
        """Nothing in the slot is of use to the next decode."""
        self._kept = Positions(0)  # encoder positions kept there
        self._fed: tuple[int, ...] = ()  # tokens fed there
        self._no_speech_prob = 0.0

    # What comes in.

    def append(self, samples: NDArray[np.float32]) -> None:
        """More audio; what was computed for a pause is then a partial like any other."""
        self._window.append(samples)
        self._paused = False
        self._early = None
        if self.job is not None and self.job.kind is Kind.EARLY:
            self.job.kind = Kind.PARTIAL

    def pause(self) -> None:
        """The end of speech looks likely."""
        self._paused = True

    def finish(self) -> list[EngineEvent]:
        """No more audio. The early final is published if it is there."""
        self._finished = True
        if self._early is not None:
            return [self._early, UtteranceFinished(self.id)]
        if self._window.num_samples == 0:
            return [UtteranceFinished(self.id)]
        if self.job is not None and self.job.kind is Kind.EARLY:
            self.job.kind = Kind.FINAL
        elif self.job is not None and self.job.kind is Kind.PARTIAL:
            self.job = None  # overtaken by the final
        return []

    # What is needed next.

    def wants(self) -> Kind | None:
        """The job that should run now, if any; none while one is live."""
        held = self._window.num_samples
        if self.job is not None or held == 0:
            return None
        if held > self._max_segment:
            return Kind.CUT
        if self._finished:
            return Kind.FINAL
        if self._paused and self._early is None:
            return Kind.EARLY
        if self.options.interim_results and self._partial_is_due():
            return Kind.PARTIAL
        return None

    @property
    def is_speaking(self) -> bool:
        """Whether partials of it are awaited."""
        return self.options.interim_results and not (self._finished or self._paused)

    @property
    def num_positions(self) -> int:
        """Encoder positions that a partial over all of its window computes."""
        trimmed = self._setup.contexts.is_trimmed(self.options.context, final=False)
        return self._setup.contexts.encoding(
            self._window.num_samples, trimmed=trimmed, kept=self._kept
        ).width

    def encoding_of(self, job: Job) -> Encoding:
        """What is encoded for `job`; only partials are extended."""
        kept = self._kept if job.kind is Kind.PARTIAL else Positions(0)
        return self._setup.contexts.encoding(
            job.num_samples, trimmed=job.current.trimmed, kept=kept
        )

    def keeps(self, job: Job) -> bool:
        """Whether what `job` encodes is worth keeping for an extension."""
        return self._setup.contexts.look_back is not None and job.current.trimmed

    def _partial_is_due(self) -> bool:
        """Whether the grid has gone on; but for a segment's first, by about the interval in force.

        To the nearest point of the grid: always the next one would be later than there is need.
        """
        passed = self._partial_end() - self._covered
        about = self.interval - self.options.interim_interval // 2
        return passed > 0 and (self._covered == 0 or passed >= about)

    def _partial_end(self) -> Samples:
        """End of the newest window on the grid of refreshes that the audio reaches.

        The grid hangs on the segment's start: which windows are decoded does not depend on how
        the audio was chunked.
        """
        interval = self.options.interim_interval
        end = self._window.num_samples // interval * interval
        return Samples(end) if end >= self._setup.config.first_partial else Samples(0)

    def plan(self, kind: Kind) -> Job:
        """The job that `wants` named, on the newest audio; it lives once it is set as `job`."""
        if kind is Kind.PARTIAL:
            num_samples = self._partial_end()
        else:
            num_samples = min(self._window.num_samples, self._max_segment)
        return Job(kind, num_samples, self._attempts(kind))

    def _attempts(self, kind: Kind) -> Sequence[Attempt]:
        """The ladder: greedy, then with the full context, then at rising temperatures."""
        contexts = self._setup.contexts
        trimmed = contexts.is_trimmed(self.options.context, final=kind is not Kind.PARTIAL)
        attempts = [Attempt(trimmed, 0.0)]
        if kind is Kind.PARTIAL:
            return attempts
        if trimmed and not contexts.trained_trimmed:
            trimmed = False
            attempts.append(Attempt(trimmed, 0.0))
        attempts += [Attempt(trimmed, t) for t in self._setup.config.temperatures[1:]]
        return attempts

    def samples_of(self, job: Job) -> NDArray[np.float32]:
        """The audio that `job` decodes [num_samples]."""
        return self._window.view(job.num_samples)

    @property
    def _live(self) -> Job:
        if self.job is None:
            raise AssertionError(f"utterance {self.id} has no live job")
        return self.job

    # The steps of a job.

    def encoded(self) -> None:
        """The window is encoded: detect the language where it is open, else decode."""
        if self.keeps(self._live):
            self._kept = positions_covering(self._live.num_samples)
        if self._language is None:
            self._fed = ()  # detecting feeds `sot` in their place
            self._live.phase = Phase.DETECT
        else:
            self._begin_decode()

    def language_candidates(self) -> tuple[int, ...]:
        """Token ids to detect among."""
        known = self._setup.tokenizer.languages
        return tuple(known[code] for code in self.options.languages or known)

    def detected(self, token: int, probability: float) -> None:
        """Take the detected language; it stays once enough was heard. Raises StepError."""
        code = self._setup.tokenizer.language_of(token)
        if code is None:
            raise AssertionError(f"token {token} is no language")
        self._guessed = Language(code, require_finite(probability))
        if self._live.num_samples >= self._setup.config.language_lock:
            self._language = self._guessed
        self._begin_decode()

    @property
    def _current_language(self) -> Language:
        language = self._language or self._guessed
        if language is None:
            raise AssertionError(f"utterance {self.id} was decoded before its language was known")
        return language

    def _begin_decode(self) -> None:
        job, config, tokenizer = self._live, self._setup.config, self._setup.tokenizer
        half = self._setup.n_text_ctx // 2
        prompt = tokenizer.prompt_tokens(self._prompt, half - 1) if job.use_prompt else ()
        sot_sequence = tokenizer.forced_prefix(
            self._current_language.code, self.options.task, timestamps=self.options.timestamps
        )
        seconds = seconds_from_samples(job.num_samples)
        room = self._setup.n_text_ctx - len(prompt) - len(sot_sequence)
        budget = config.base_tokens + int(seconds * config.tokens_per_second)
        job.begin(
            prompt=prompt,
            sot_sequence=sot_sequence,
            stable=self._stable.tokens if self.options.append_only else (),
            previous=self._previous if config.use_drafts else (),
            timestamps=self.options.timestamps,
            limits=Limits(
                min(config.max_new_tokens, room, budget), tokenizer.eot, config.repetition_guard
            ),
            fed=self._fed if job.kind is Kind.PARTIAL else (),
        )
        if job.resumes:
            job.no_speech_prob = self._no_speech_prob

    def decoded(self) -> list[EngineEvent]:
        """The live job has all its tokens: publish, try again, or align them first."""
        job = self._live
        hypothesis = job.result()
        if self.keeps(job):
            self._fed = job.forced + hypothesis.ids[job.num_stable :]
            self._no_speech_prob = hypothesis.no_speech_prob
        verdict = judge(
            hypothesis, self._text(hypothesis.ids), self._setup.config.thresholds, looped=job.looped
        )
        if job.kind is Kind.PARTIAL:
            self.job = None
            return self._update(hypothesis, verdict)
        job.candidates.append((hypothesis, job.looped))
        if verdict is Verdict.RETRY and job.retry():
            if job.phase is Phase.FEED:
                self._begin_decode()
            return []
        if verdict is Verdict.RETRY:
            hypothesis = max(job.candidates, key=lambda it: (not it[1], it[0].avg_logprob))[0]
        elif verdict is Verdict.DROP:
            hypothesis = self._only_stable(hypothesis)
        job.hypothesis, job.verdict = hypothesis, verdict
        if self._must_align(job.kind, hypothesis):
            job.phase = Phase.ALIGN
            self._fed = ()
            return []
        return self._conclude(hypothesis, ())

    def _only_stable(self, hypothesis: Hypothesis) -> Hypothesis:
        """What is left of a hypothesis that was not speech: what was promised already."""
        return Hypothesis(
            self._stable.tokens,
            hypothesis.num_samples,
            hypothesis.no_speech_prob,
            hypothesis.eot_logprob,
            hypothesis.temperature,
        )

    def _must_align(self, kind: Kind, hypothesis: Hypothesis) -> bool:
        if not self._text(hypothesis.ids):
            return False
        if self.options.word_timestamps:
            return True
        return kind is Kind.CUT and self._last_closed_span(hypothesis) is None

    def align_row(self, slot: SlotHandle) -> AlignRow:
        """What the aligning step needs; without prompt and timestamps, as openai/whisper does."""
        job, tokenizer = self._live, self._setup.tokenizer
        forced = tokenizer.forced_prefix(
            self._current_language.code, self.options.task, timestamps=False
        )
        text = tuple(token.id for token in self._text_tokens(job.hypothesis))
        return AlignRow(
            slot,
            (*forced, *text, tokenizer.eot),
            len(forced),
            positions_covering(job.num_samples),
        )

    def aligned(self, boundaries: Sequence[int]) -> list[EngineEvent]:
        """The hypothesis has its token boundaries."""
        hypothesis = self._live.hypothesis
        if hypothesis is None:
            raise AssertionError(f"utterance {self.id} was aligned before it was decoded")
        return self._conclude(hypothesis, boundaries)

    # What a hypothesis becomes.

    def _update(self, hypothesis: Hypothesis, verdict: Verdict) -> list[EngineEvent]:
        """A partial. It may commit words, unless it is one that a final would not keep."""
        self._covered = hypothesis.num_samples
        if verdict is Verdict.DROP:
            return []
        self._previous = hypothesis.ids
        if not self.options.interim_results:
            return []
        if verdict is Verdict.KEEP and self.options.append_only and self._language is not None:
            self._stable.observe(self._words(hypothesis.tokens), hypothesis.num_samples)
        start = self._window.start
        end = Samples(start + hypothesis.num_samples)
        return [
            HypothesisUpdated(
                self.id,
                self._segment,
                start,
                end,
                self._text(hypothesis.ids),
                self._stable.text.lstrip(),
                end_of(self._stable.words, start, end),
                self._current_language.code,
                self.interval,
            )
        ]

    def _conclude(self, hypothesis: Hypothesis, boundaries: Sequence[int]) -> list[EngineEvent]:
        job, self.job = self._live, None
        if job.kind is Kind.CUT:
            return self._cut(hypothesis, boundaries)
        if job.kind is not Kind.PARTIAL:
            closed = self._closed(hypothesis, self._timed(hypothesis, boundaries))
            if self._finished:
                return [closed, UtteranceFinished(self.id)]
            self._early = closed
        return self._update(hypothesis, job.verdict)

    def _cut(self, hypothesis: Hypothesis, boundaries: Sequence[int]) -> list[EngineEvent]:
        """Close what lies before the cut; the rest of the audio opens the next segment."""
        timed = self._timed(hypothesis, boundaries)
        span = self._last_closed_span(hypothesis)
        if span is not None:
            num_tokens, at = span
            timed = timed[: _words_within(timed, self._num_text(hypothesis.tokens[:num_tokens]))]
        else:
            stable = merge_punctuation([word for word in self._stable.words if word.text])
            cut = choose_cut(
                self._window.view(hypothesis.num_samples),
                [time for _, time in timed],
                num_stable=len(stable),
            )
            timed, at = timed[: cut.num_words], cut.at
            num_text = sum(len(word.tokens) for word, _ in timed)
            num_tokens = self._tokens_holding(hypothesis, num_text)
        kept = Hypothesis(
            hypothesis.tokens[:num_tokens],
            at,
            hypothesis.no_speech_prob,
            hypothesis.eot_logprob,
            hypothesis.temperature,
        )
        closed = self._closed(kept, timed)
        self._prompt = self.options.prompt
        trusted = hypothesis.complete and hypothesis.temperature <= _PROMPT_TEMPERATURE
        if trusted and self._setup.traits.carries_text:
            self._prompt = f"{self.options.prompt} {closed.text}"
        self._window.cut(Samples(self._window.start + at))
        self._segment += 1
        self._begin_segment(() if self.options.timestamps else hypothesis.ids[num_tokens:])
        return [closed]

    def _last_closed_span(self, hypothesis: Hypothesis) -> tuple[int, Samples] | None:
        """Tokens and samples up to the last closing timestamp, where the model gave one.

        One that leaves out what was promised to this segment does not count.
        """
        if not self.options.timestamps:
            return None
        begin = self._setup.tokenizer.timestamp_begin
        promised = self._num_text(self._stable.tokens)
        for span in reversed(parse_spans(hypothesis.tokens, begin)):
            if self._num_text(hypothesis.tokens[: span.num_tokens]) < promised:
                return None
            if span.end is not None and 0 < span.end <= hypothesis.num_samples:
                return span.num_tokens, span.end
        return None

    def _num_text(self, tokens: Sequence[Token]) -> int:
        return sum(token.id < self._setup.tokenizer.eot for token in tokens)

    def _tokens_holding(self, hypothesis: Hypothesis, num_text: int) -> int:
        """How many leading tokens hold `num_text` text tokens, timestamps between them counted."""
        for index, token in enumerate(hypothesis.tokens):
            if num_text == 0:
                return index
            num_text -= token.id < self._setup.tokenizer.eot
        return len(hypothesis.tokens)

    def _closed(
        self, hypothesis: Hypothesis, timed: Sequence[tuple[HypothesisWord, TimedWord]]
    ) -> SegmentClosed:
        """The final of the current segment."""
        start, text = self._window.start, self._text(hypothesis.ids)
        end = Samples(start + hypothesis.num_samples)
        language = self._current_language
        spans = []
        if self.options.timestamps:
            for span in parse_spans(hypothesis.tokens, self._setup.tokenizer.timestamp_begin):
                ids = tuple(token.id for token in span.tokens)
                until = end if span.end is None else Samples(min(end, start + span.end))
                since = Samples(min(until, start + span.start))
                spans.append(TimestampSpan(since, until, self._text(ids), ids))
        return SegmentClosed(
            utterance_id=self.id,
            segment=self._segment,
            start=start,
            end=end,
            text=text,
            language=language.code,
            language_probability=language.probability,
            confidence=min(1.0, exp(hypothesis.avg_logprob)) if text else 0.0,
            no_speech_prob=hypothesis.no_speech_prob,
            avg_logprob=hypothesis.avg_logprob,
            compression_ratio=compression_ratio(text),
            temperature=hypothesis.temperature,
            tokens=hypothesis.ids,
            words=tuple(
                Word(
                    word.text.strip(),
                    Samples(min(end, start + time.start)),
                    Samples(min(end, start + time.end)),
                    word.confidence,
                )
                for word, time in timed
                if self.options.word_timestamps and word.text.strip()
            ),
            spans=tuple(spans),
        )

    def _timed(
        self, hypothesis: Hypothesis, boundaries: Sequence[int]
    ) -> list[tuple[HypothesisWord, TimedWord]]:
        """Written words and their times in the window; none where nothing was aligned."""
        if not boundaries:
            return []
        words = merge_punctuation(self._words(self._text_tokens(hypothesis)))
        return list(zip(words, time_words(words, boundaries, hypothesis.num_samples), strict=True))

    def _text_tokens(self, hypothesis: Hypothesis | None) -> tuple[Token, ...]:
        if hypothesis is None:
            raise AssertionError(f"utterance {self.id} has no hypothesis to align")
        eot = self._setup.tokenizer.eot
        return tuple(token for token in hypothesis.tokens if token.id < eot)

    def _words(self, tokens: Sequence[Token]) -> list[HypothesisWord]:
        ids = [token.id for token in tokens]
        pieces = self._setup.tokenizer.split_to_words(ids, self._current_language.code)
        return attach(pieces, tokens)

    def _text(self, ids: Sequence[int]) -> str:
        return text_of(self._setup.tokenizer, ids).lstrip()


def _words_within(timed: Sequence[tuple[HypothesisWord, TimedWord]], num_text: int) -> int:
    """How many leading words the first `num_text` text tokens hold in full."""
    ends = accumulate(len(word.tokens) for word, _ in timed)
    return sum(end <= num_text for end in ends)
