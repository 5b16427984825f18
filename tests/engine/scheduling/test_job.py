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
) -> Job:
    job = Job(Kind.FINAL, Samples(1000), attempts)
    begin_again(job, stable=stable, previous=previous, max_tokens=max_tokens, guard=guard)
    return job


def begin_again(
    job: Job,
    *,
    stable: Iterable[int] = (),
    previous: tuple[int, ...] = (),
    max_tokens: int = 50,
    guard: bool = True,
) -> None:
    job.begin(
        prompt=PROMPT,
        sot_sequence=SOT_SEQUENCE,
        stable=tuple(Token(number, -0.5, 0) for number in stable),
        previous=previous,
        timestamps=False,
        limits=Limits(max_tokens, EOT, guard),
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
