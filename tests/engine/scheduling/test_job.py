from collections.abc import Iterable
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import Samples
from engine.decoding.hypothesis import Token
from engine.errors import StepError
from engine.scheduling.job import Attempt, Job, Kind, Limits, Phase, require_finite
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import PrefillRow, TokenRow, VerifyRow

SLOT = SlotHandle(0, 1)
EOT = 0
PROMPT, SOT_SEQUENCE = (90, 91, 92), (80, 81)
GREEDY = Attempt(trimmed=True, temperature=0.0)


def begun(
    *,
    stable: Iterable[int] = (),
    previous: tuple[int, ...] = (),
    max_tokens: int = 50,
    guard: bool = True,
    attempts: tuple[Attempt, ...] = (GREEDY,),
    fed: tuple[int, ...] = (),
) -> Job:
    job = Job(Kind.FINAL, Samples(1000), attempts)
    begin_again(job, stable=stable, previous=previous, max_tokens=max_tokens, guard=guard, fed=fed)
    return job


def begin_again(
    job: Job,
    *,
    stable: Iterable[int] = (),
    previous: tuple[int, ...] = (),
    max_tokens: int = 50,
    guard: bool = True,
    fed: tuple[int, ...] = (),
) -> None:
    job.begin(
        prompt=PROMPT,
        sot_sequence=SOT_SEQUENCE,
        stable=tuple(Token(number, -0.5, 0) for number in stable),
        previous=previous,
        timestamps=False,
        limits=Limits(max_tokens, EOT, guard),
        fed=fed,
    )


def row(*tokens: int, positions: tuple[int, ...] = (), no_speech: float | None = None) -> TokenRow:
    return TokenRow(SLOT, tokens, (-0.1,) * len(tokens), positions, no_speech)


def phase_of(job: Job) -> Phase:
    """Asked anew each time; a type checker takes a phase that was asserted to last."""
    return job.phase


def test_the_first_pass_feeds_prompt_sot_sequence_and_stable_prefix() -> None:
    job = begun(stable=[5, 6])
    fed = job.feed_row(SLOT)
    assert isinstance(fed, PrefillRow)
    assert fed.tokens == (*PROMPT, *SOT_SEQUENCE, 5, 6)
    assert fed.tokens[fed.sot_index] == SOT_SEQUENCE[0]
    # The rules count from where free choice would begin without a stable prefix.
    assert fed.sampling.begin == len(PROMPT) + len(SOT_SEQUENCE)


def test_a_draft_rides_on_the_first_pass() -> None:
    job = begun(stable=[5], previous=(5, 6, 7))
    fed = job.feed_row(SLOT)
    assert isinstance(fed, VerifyRow)
    assert (fed.start, fed.tokens, fed.draft) == (0, (*PROMPT, *SOT_SEQUENCE, 5), (6, 7))


def test_a_later_draft_is_fed_behind_the_token_chosen_last() -> None:
    job = begun(previous=(1, 2, 3, 4, 5, 6, 7))
    job.advance(row(1, 9))  # the draft was wrong from its second token on
    assert phase_of(job) is Phase.FEED
    fed = job.feed_row(SLOT)
    assert isinstance(fed, VerifyRow)
    assert (fed.tokens, fed.draft) == ((9,), (3, 4, 5, 6, 7))
    assert fed.start == len(PROMPT) + len(SOT_SEQUENCE) + 1  # of 1 9, one was fed


def test_drawn_tokens_are_never_drafted() -> None:
    job = begun(previous=(1, 2, 3), attempts=(Attempt(True, 0.4),))
    assert isinstance(job.feed_row(SLOT), PrefillRow)


def test_the_end_of_text_ends_the_job_and_is_no_token() -> None:
    job = begun()
    job.advance(TokenRow(SLOT, (1, EOT, 7), (-0.1, -0.7, -0.1), (), 0.25))
    hypothesis = job.result()
    assert phase_of(job) is Phase.DONE
    assert (hypothesis.ids, hypothesis.complete) == ((1,), True)
    assert (hypothesis.eot_logprob, hypothesis.no_speech_prob) == (-0.7, 0.25)


def test_a_job_ends_at_its_limit_incomplete() -> None:
    job = begun(max_tokens=2)
    job.advance(row(1))
    assert phase_of(job) is Phase.DECODE
    job.advance(row(2))
    assert phase_of(job) is Phase.DONE
    assert not job.result().complete


@given(st.integers(0, 8), st.integers(1, 12))
def test_a_draft_leaves_room_for_the_token_behind_it(num_stable: int, more: int) -> None:
    previous = tuple(range(1, 40))
    job = begun(
        stable=previous[:num_stable], previous=previous, max_tokens=num_stable + more, guard=False
    )
    assert len(job.draft) == more - 1
    job.advance(row(*job.draft, previous[num_stable + len(job.draft)]))
    assert phase_of(job) is Phase.DONE
    assert len(job.result().tokens) == num_stable + more


def test_positions_come_from_passes_that_looked_and_stay_in_between() -> None:
    job = begun()
    job.advance(row(1, positions=(7,)))
    job.advance(row(2))
    assert [token.position for token in job.result().tokens] == [7, 7]


@given(st.lists(st.integers(1, 3), min_size=1, max_size=60), st.data())
def test_how_many_tokens_a_pass_accepts_does_not_change_where_a_loop_is_seen(
    tokens: list[int], data: st.DataObject
) -> None:
    one_by_one, in_passes = begun(max_tokens=99), begun(max_tokens=99)
    for token in tokens:
        if one_by_one.phase is not Phase.DONE:
            one_by_one.advance(row(token))
    at = 0
    while at < len(tokens) and in_passes.phase is not Phase.DONE:
        count = data.draw(st.integers(1, len(tokens) - at))
        in_passes.advance(row(*tokens[at : at + count]))
        at += count
    assert in_passes.result() == one_by_one.result()
    assert in_passes.looped == one_by_one.looped


def test_a_loop_ends_the_job_with_its_words_once() -> None:
    job = begun()
    job.advance(row(9, *([1, 2] * 6)))
    assert phase_of(job) is Phase.DONE
    assert job.looped
    assert job.result().ids == (9, 1, 2)
    assert not job.result().complete


def test_without_the_guard_a_loop_goes_on_to_the_limit() -> None:
    job = begun(guard=False)
    job.advance(row(*([1, 2] * 20)))
    assert not job.looped
    assert phase_of(job) is Phase.DECODE


def test_what_was_promised_survives_a_loop() -> None:
    promised = (1, 2, 1, 2, 1, 2, 1, 2)
    job = begun(stable=promised)
    job.advance(row(1, 2, 1, 2))
    assert job.looped
    assert job.result().ids == promised


@pytest.mark.parametrize("figure", [nan, inf, -inf])
def test_a_figure_that_is_not_finite_is_a_failure(figure: float) -> None:
    with pytest.raises(StepError, match="where a finite number is due"):
        begun().advance(TokenRow(SLOT, (1,), (figure,), ()))
    with pytest.raises(StepError, match="where a finite number is due"):
        begun().advance(row(1, no_speech=figure))
    assert require_finite(-1.5) == -1.5


def test_attempts_are_tried_in_order_and_encoded_again_only_for_another_context() -> None:
    full = Attempt(trimmed=False, temperature=0.0)
    drawn = Attempt(trimmed=False, temperature=0.4)
    job = begun(attempts=(GREEDY, full, drawn))
    assert job.retry()
    assert (job.current, job.phase) == (full, Phase.ENCODE)
    assert job.retry()
    assert (job.current, job.phase) == (drawn, Phase.FEED)
    assert not job.retry()


def test_a_retry_starts_over_from_the_stable_prefix() -> None:
    job = begun(attempts=(GREEDY, Attempt(True, 0.4)), max_tokens=3)
    job.advance(TokenRow(SLOT, (4, EOT), (-0.1, -0.9), ()))
    seed = job.sampling.seed
    job.retry()
    begin_again(job, stable=[5], max_tokens=2)
    assert [token.id for token in job.tokens] == [5]
    job.advance(row(7))
    hypothesis = job.result()
    # Ended by its limit: nothing of the first attempt's end of text is left.
    assert (hypothesis.complete, hypothesis.eot_logprob) == (False, 0.0)
    assert hypothesis.temperature == 0.4
    assert job.sampling.seed != seed


def test_the_prompt_is_dropped_after_a_loop_and_stays_dropped() -> None:
    job = begun(attempts=(GREEDY, Attempt(True, 0.4), Attempt(True, 0.8)))
    job.retry()
    assert job.use_prompt
    begin_again(job)
    job.advance(row(*([1] * 12)))
    job.retry()
    assert not job.use_prompt


# What may be launched ahead of results.


def launch(job: Job, phase: Phase) -> None:
    """What the scheduler notes of a launch."""
    assert job.due is phase
    job.launched = phase
    job.in_flight += 1


def test_with_nothing_in_flight_the_step_that_a_job_needs_is_due() -> None:
    job = Job(Kind.PARTIAL, Samples(1000), (GREEDY,))
    for phase in Phase:
        job.phase = phase
        assert job.due is phase


@pytest.mark.parametrize("phase", [Phase.ENCODE, Phase.DETECT, Phase.ALIGN])
def test_what_is_not_a_pass_over_tokens_is_waited_for(phase: Phase) -> None:
    job = Job(Kind.PARTIAL, Samples(1000), (GREEDY,), phase=phase)
    job.limits = Limits(50, EOT, repetition_guard=True)
    launch(job, phase)
    assert job.due is None


def test_behind_a_prefill_in_flight_one_token_may_be_decoded_and_then_no_other() -> None:
    job = begun()
    launch(job, Phase.FEED)
    assert job.due is Phase.DECODE
    assert job.is_decoding
    launch(job, Phase.DECODE)
    assert job.due is None
    assert not job.is_decoding


def test_decoding_goes_on_a_token_ahead_of_its_results() -> None:
    job = begun(guard=False)
    launch(job, Phase.FEED)
    for token in range(1, 10):
        launch(job, Phase.DECODE)
        assert job.due is None
        job.in_flight -= 1
        job.advance(row(token))
    assert job.result().ids == tuple(range(1, 10))


def test_a_draft_found_while_a_token_is_in_flight_waits_for_it() -> None:
    """Which token it is decides where the draft goes on."""
    job = begun(previous=(1, 2, 3, 4, 5, 6, 7))
    launch(job, Phase.FEED)
    launch(job, Phase.DECODE)
    job.in_flight -= 1
    job.advance(row(1, 9))
    assert phase_of(job) is Phase.FEED
    assert job.due is None
    job.in_flight -= 1
    job.advance(row(3))
    assert job.due is Phase.FEED
    fed = job.feed_row(SLOT)
    assert isinstance(fed, VerifyRow)
    assert fed.tokens == (3,)


@given(st.integers(1, 12), st.integers(0, 14), st.data())
def test_whatever_is_accepted_a_token_ahead_never_goes_beyond_the_limit(
    max_tokens: int, num_previous: int, data: st.DataObject
) -> None:
    """The device keeps what it decodes: behind the last token there is no room for one."""
    job = begun(previous=tuple(range(1, num_previous + 1)), max_tokens=max_tokens, guard=False)
    in_flight: list[int] = []  # the most tokens that each launched step may bring
    while phase_of(job) is not Phase.DONE:
        due = job.due
        if due is not None and (not in_flight or data.draw(st.booleans())):
            in_flight.append(1 + (len(job.draft) if due is Phase.FEED else 0))
            launch(job, due)
            assert len(job.tokens) + sum(in_flight) <= max_tokens
            continue
        job.in_flight -= 1
        accepted = data.draw(st.integers(1, in_flight.pop(0)))
        job.advance(row(*[100 + len(job.tokens) + number for number in range(accepted)]))
    assert len(job.result().tokens) == max_tokens


# What a slot holds of an earlier decode.


def test_tokens_that_the_slot_holds_are_not_fed_again() -> None:
    forced = (*PROMPT, *SOT_SEQUENCE, 5, 6)
    job = begun(stable=[5, 6], previous=(5, 6, 7, 8), fed=(*forced, 7))
    assert job.resumes
    fed = job.feed_row(SLOT)
    assert isinstance(fed, VerifyRow)
    # The last stable token is fed once more: what it says decides over the draft.
    assert (fed.start, fed.tokens, fed.draft) == (len(forced) - 1, (6,), (7, 8))


@pytest.mark.parametrize(
    ("stable", "previous", "fed"),
    [
        ((5, 6), (5, 6, 7), ()),
        ((5, 6), (5, 6, 7), (*PROMPT, *SOT_SEQUENCE, 5)),
        ((5, 6), (5, 6, 7), (*PROMPT, *SOT_SEQUENCE, 5, 9, 7)),
        ((5, 6), (5, 6, 7), (*SOT_SEQUENCE, 5, 6, 7)),
        ((), (5, 6, 7), (*PROMPT, *SOT_SEQUENCE, 5, 6)),
        ((5, 6), (5, 6), (*PROMPT, *SOT_SEQUENCE, 5, 6)),
    ],
    ids=["nothing", "too little", "another word", "another prompt", "none stable", "no draft"],
)
def test_a_slot_that_holds_anything_else_is_fed_from_its_start(
    stable: tuple[int, ...], previous: tuple[int, ...], fed: tuple[int, ...]
) -> None:
    job = begun(stable=stable, previous=previous, fed=fed)
    assert not job.resumes
    first = job.feed_row(SLOT)
    assert first.tokens == (*PROMPT, *SOT_SEQUENCE, *stable)
    assert not isinstance(first, VerifyRow) or first.start == 0


def test_another_attempt_resumes_only_what_it_is_told_the_slot_holds() -> None:
    forced = (*PROMPT, *SOT_SEQUENCE, 5)
    job = begun(stable=[5], previous=(5, 6), fed=forced, attempts=(GREEDY, GREEDY))
    assert job.resumes
    job.retry()
    begin_again(job, stable=[5], previous=(5, 6))
    assert not job.resumes
