"""Many utterances over few slots, with a runner that hears words in samples."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from engine.audio.units import SAMPLE_RATE, Positions, Samples, samples_from_ms
from engine.events import (
    OpenUtterance,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
    UtteranceOptions,
)
from engine.scheduling.steps import (
    DecodeStep,
    EncodeStep,
    ExtendStep,
    PrefillStep,
    Step,
    VerifyStep,
)
from tests.support.fake_runner import (
    MUMBLE,
    NOISE,
    POISON,
    WORDS,
    Audio,
    Rig,
    say,
    silence,
)

TWO_SECONDS = samples_from_ms(2000)
LONG_ENOUGH = say(*WORDS[:4])  # for a first partial


def slots_of(step: Step) -> list[int]:
    handles = step.slots if isinstance(step, DecodeStep) else [row.slot for row in step.rows]
    return [handle.index for handle in handles]


def started(*audio: Audio, finished: bool = False, **settings: Any) -> Rig:
    """A rig with one utterance, numbered from 1, for each of `audio`; nothing was run yet."""
    rig = Rig(**settings)
    for number, samples in enumerate(audio, start=1):
        rig.open(number)
        rig.append(samples, number)
        if finished:
            rig.finish(number)
    return rig


def encodes(rig: Rig) -> list[EncodeStep]:
    return [step for step in rig.runner.steps if isinstance(step, EncodeStep)]


def run(rig: Rig, count: int) -> list[Step]:
    steps = [rig.step() for _ in range(count)]
    return [step for step in steps if step is not None]


# Steps in flight.


def test_a_step_that_fails_while_another_of_its_slot_is_in_flight_fails_alone() -> None:
    """A final overtakes the partial whose encode has been launched."""
    rig = started(LONG_ENOUGH, run_ahead=2)
    assert isinstance(rig.step(), EncodeStep)
    rig.finish()
    rig.runner.fail_next = True
    assert isinstance(rig.step(), EncodeStep)
    rig.settle()
    (event,) = rig.events
    assert event == UtteranceFailed(UtteranceId(1), "told to fail")


def test_a_token_is_decoded_ahead_only_where_there_is_room_for_it() -> None:
    rig = started(say(*WORDS[:8]), finished=True, run_ahead=1, max_new_tokens=3)
    rig.settle()
    assert sum(isinstance(step, DecodeStep) for step in rig.runner.steps) == 2
    assert rig.text().split() == list(WORDS[:3])


def test_a_result_that_comes_behind_its_job_s_end_finds_nobody() -> None:
    alone = started(say(*WORDS[:4]), finished=True)
    alone.settle()
    ahead = started(say(*WORDS[:4]), finished=True, run_ahead=1)
    ahead.settle()
    assert ahead.text() == alone.text()
    decodes = [
        sum(isinstance(step, DecodeStep) for step in rig.runner.steps) for rig in (alone, ahead)
    ]
    assert decodes[1] == decodes[0] + 1
    assert ahead.metrics.tokens == alone.metrics.tokens


# Windows that are extended.


def test_partials_of_a_growing_window_encode_only_what_is_new() -> None:
    rig = started(partial_context="incremental", look_back=Positions(8))
    rig.open()
    samples = say(*WORDS[:20])
    for start in range(0, len(samples), 3200):
        rig.append(samples[start : start + 3200])
        rig.settle()
    rig.finish()
    rig.settle()
    extensions = [step for step in rig.runner.steps if isinstance(step, ExtendStep)]
    assert len(extensions) > 5
    assert {step.width for step in extensions} == {64}
    starts = [step.rows[0].start for step in extensions]
    assert starts == sorted(starts)
    assert all(step.keep for step in encodes(rig))
    assert rig.runner.steps[-1] is not extensions[-1]
    assert len(encodes(rig)[-1].rows[0].samples) == len(samples)  # the final is encoded whole
    assert rig.text() == " ".join(WORDS[:20])


def test_stable_tokens_are_not_fed_again_where_a_window_is_extended() -> None:
    rig = started(partial_context="incremental", look_back=Positions(8))
    rig.open()
    samples = say(*WORDS[:20])
    for start in range(0, len(samples), 3200):
        rig.append(samples[start : start + 3200])
        rig.settle()
    rows = [row for step in rig.runner.steps if isinstance(step, VerifyStep) for row in step.rows]
    resumed = [row for row in rows if row.start > 0]
    assert len(resumed) > 5
    stable = rig.partials()[-1].stable_text.split()
    assert len(stable) > 10
    assert max(row.start for row in resumed) >= len(stable)
    assert stable == list(WORDS[: len(stable)])


def test_a_window_whose_slot_was_taken_is_encoded_whole_again() -> None:
    rig = started(partial_context="incremental", look_back=Positions(8), num_slots=1)
    for number in (1, 2):
        rig.open(number)
    for _ in range(6):
        for number in (1, 2):
            rig.append(say(*WORDS[:4]), number)
            rig.settle()
    assert not any(isinstance(step, ExtendStep) for step in rig.runner.steps)


# The order of steps.


def test_nothing_to_do_is_no_step() -> None:
    rig = started(silence(100))
    assert rig.scheduler.next_step(0.0) is None


def test_finals_go_before_partials_that_waited_longer() -> None:
    rig = started(LONG_ENOUGH, LONG_ENOUGH, say("red"), encode_slice=Positions(1))
    rig.finish(3)
    rig.settle()
    order = [event.utterance_id for event in rig.events]
    assert order[:2] == [3, 3]
    assert [len(row.samples) for row in encodes(rig)[0].rows] == [len(say("red"))]


def test_early_finals_go_between_finals_and_partials() -> None:
    rig = started(LONG_ENOUGH, LONG_ENOUGH, LONG_ENOUGH, encode_slice=Positions(1))
    rig.pause(2)
    rig.finish(3)
    rig.settle()
    told = [event.utterance_id for event in rig.events if not isinstance(event, UtteranceFinished)]
    assert told == [3, 2, 1]


def test_an_early_final_is_the_final_once_speech_has_ended_under_it() -> None:
    rig = started(LONG_ENOUGH, LONG_ENOUGH, encode_slice=Positions(1))
    rig.pause(1)
    assert isinstance(rig.step(), EncodeStep)
    rig.finish(1)
    rig.finish(2)
    rig.settle()
    told = [event.utterance_id for event in rig.events if isinstance(event, UtteranceFinished)]
    assert told == [1, 2]
    assert len(encodes(rig)) == 2  # nothing was computed twice


def test_a_final_overtakes_partials_that_are_being_decoded() -> None:
    rig = started(LONG_ENOUGH)
    run(rig, 3)
    rig.open(2)
    rig.append(say("red"), 2)
    rig.finish(2)
    assert isinstance(rig.step(), EncodeStep)
    rig.settle()
    assert rig.events[0].utterance_id == 2


def test_where_not_all_rows_fit_the_finals_are_in_the_step() -> None:
    rig = started(LONG_ENOUGH, say("red", "green"), max_batch=1, use_drafts=False)
    run(rig, 3)  # the partial of 1 is being decoded
    rig.finish(2)
    rig.settle()
    assert [event.utterance_id for event in rig.events[:2]] == [2, 2]


def test_the_longest_waiting_of_one_rank_is_encoded_first() -> None:
    rig = started(
        LONG_ENOUGH, say(*WORDS[:5]), say(*WORDS[:6]), finished=True, encode_slice=Positions(1)
    )
    rig.settle()
    lengths = [len(row.samples) for step in encodes(rig) for row in step.rows]
    assert lengths == sorted(lengths)


def test_more_audio_does_not_cost_a_partial_its_place() -> None:
    rig = started(LONG_ENOUGH, LONG_ENOUGH, encode_slice=Positions(1))
    rig.append(say("red"), 1)
    rig.settle()
    assert [event.utterance_id for event in rig.events] == [1, 2]


def test_encoding_and_decoding_alternate() -> None:
    """However many windows wait, a decode step waits for one slice of them at most."""
    rig = started(
        *[LONG_ENOUGH] * 6, finished=True, num_slots=6, encode_slice=Positions(1), use_drafts=False
    )
    rig.settle()
    kinds = [type(step) for step in rig.runner.steps]
    alternating = [kind for kind in kinds if kind in (EncodeStep, DecodeStep)]
    assert alternating[:11] == [EncodeStep, DecodeStep] * 5 + [EncodeStep]
    assert EncodeStep not in alternating[11:]


def test_drafts_in_the_midst_of_decoding_take_turns_with_encoding_too() -> None:
    rig = started(say(*WORDS[:4]), encode_slice=Positions(1))
    rig.settle()
    rig.runner.steps.clear()
    rig.append(say(*WORDS[4:8]))
    for number in (2, 3, 4):
        rig.open(number)
        rig.append(LONG_ENOUGH, number)
    rig.settle()
    later = [
        "encode" if isinstance(step, EncodeStep) else "draft"
        for step in rig.runner.steps
        if isinstance(step, EncodeStep) or (isinstance(step, VerifyStep) and step.rows[0].start > 0)
    ]
    assert later[:3] == ["encode", "draft", "encode"]


@pytest.mark.parametrize("run_ahead", [0, 1])
def test_a_draft_in_the_midst_does_not_wait_for_the_end_of_another_final(run_ahead: int) -> None:
    rig = started(say(*WORDS[:14]), run_ahead=run_ahead)
    rig.settle()
    drafted = rig.scheduler._utterances[UtteranceId(1)]
    before, heard, after = drafted._previous[:4], drafted._previous[4], drafted._previous[5:]
    drafted._previous = (*before, heard + 9, *after)  # as if a word had been heard otherwise
    rig.open(2)
    rig.append(say(*WORDS, *WORDS), 2)
    rig.finish(2)
    run(rig, 3)
    rig.append(say(WORDS[14]))
    rig.finish(1)
    rig.settle()
    ended = [e.utterance_id for e in rig.events if isinstance(e, UtteranceFinished)]
    assert ended == [1, 2]
    steps = rig.runner.steps
    assert any(isinstance(step, VerifyStep) and step.rows[0].start > 4 for step in steps)
    assert any(isinstance(step, DecodeStep) and len(step.slots) == 2 for step in steps)


def test_rows_join_a_decode_batch_that_is_running() -> None:
    rig = started(say(*WORDS[:4]), say(*WORDS[4:12]), encode_slice=Positions(1), use_drafts=False)
    rig.settle()
    sizes = [len(step.slots) for step in rig.runner.steps if isinstance(step, DecodeStep)]
    assert [size for size, _ in groupby(sizes)] == [1, 2, 1]


def test_partials_ride_along_in_the_steps_of_finals() -> None:
    rig = started(LONG_ENOUGH, use_drafts=False)
    run(rig, 3)
    rig.open(2)
    rig.append(LONG_ENOUGH, 2)
    rig.finish(2)
    rig.settle()
    assert any(isinstance(step, DecodeStep) and len(step.slots) == 2 for step in rig.runner.steps)


def test_a_slice_holds_rows_of_one_context_up_to_its_size() -> None:
    short, long = LONG_ENOUGH, say(*WORDS)
    rig = started(
        short, long, short, long, short, finished=True, num_slots=5, encode_slice=Positions(200)
    )
    rig.settle()
    slices = [(len(step.rows), step.context) for step in encodes(rig)]
    assert slices == [(2, 96), (1, 384), (1, 384), (1, 96)]


def test_no_step_holds_more_rows_than_the_batch() -> None:
    rig = started(*[LONG_ENOUGH] * 5, finished=True, num_slots=5, max_batch=2)
    rig.settle()
    for step in rig.runner.steps:
        assert isinstance(step, EncodeStep) or len(slots_of(step)) <= 2
    assert len(rig.rules.ended) == 5


def test_drafts_and_prefills_are_steps_of_their_own() -> None:
    rig = started(LONG_ENOUGH)
    rig.settle()
    rig.append(say(*WORDS[4:8]))
    rig.open(2)
    rig.append(LONG_ENOUGH, 2)
    rig.settle()
    kinds = {type(step) for step in rig.runner.steps}
    assert {PrefillStep, VerifyStep} <= kinds


# Newer audio.


def test_a_partial_that_newer_audio_overtook_is_never_run_on_the_old_window() -> None:
    rig = started(LONG_ENOUGH)
    rig.append(say(*WORDS[4:8]))
    rig.settle()
    interval = UtteranceOptions().interim_interval
    newest = len(say(*WORDS[:8])) // interval * interval
    assert [len(row.samples) for step in encodes(rig) for row in step.rows] == [newest]


def test_a_partial_that_its_final_overtook_is_given_up() -> None:
    rig = started(LONG_ENOUGH)
    run(rig, 2)
    rig.finish()
    rig.settle()
    assert rig.partials() == []
    assert rig.text() == " ".join(WORDS[:4])


# Slots.


def test_an_utterance_keeps_its_slot_between_decodes() -> None:
    rig = started(LONG_ENOUGH)
    rig.settle()
    rig.append(say(*WORDS[4:8]))
    rig.settle()
    assert len({row.slot for step in encodes(rig) for row in step.rows}) == 1


def test_whoever_rests_longest_gives_up_its_slot() -> None:
    rig = started(LONG_ENOUGH, say(*WORDS[4:8]), num_slots=2)
    rig.settle()
    rig.append(say("red"), 1)  # so 2 is at rest for longer
    rig.settle()
    rig.open(3)
    rig.append(LONG_ENOUGH, 3)
    rig.settle()
    first, second, *_, third = [row.slot for step in encodes(rig) for row in step.rows]
    assert third.index == second.index != first.index
    assert third.generation > second.generation
    for number in (1, 2, 3):
        rig.finish(number)
    rig.settle()
    assert rig.text(1) == " ".join([*WORDS[:4], "red"])
    assert rig.text(2) == " ".join(WORDS[4:8])
    assert rig.text(3) == " ".join(WORDS[:4])


def test_many_utterances_share_one_slot() -> None:
    rig = started(*[say(word, "red", word) for word in WORDS], finished=True, num_slots=1)
    rig.settle()
    for number, word in enumerate(WORDS, start=1):
        assert rig.text(number) == f"{word} red {word}"


def test_a_slot_that_is_at_work_is_never_taken() -> None:
    rig = started(LONG_ENOUGH, say(*WORDS[4:8]), num_slots=1, use_drafts=False)
    run(rig, 3)
    rig.finish(2)
    rig.settle()
    assert len(rig.partials(1)) == 1
    assert rig.text(2) == " ".join(WORDS[4:8])


# The end of an utterance.


def test_an_utterance_cannot_be_opened_twice() -> None:
    rig = started(LONG_ENOUGH)
    command = OpenUtterance(UtteranceId(1), Samples(0), UtteranceOptions())
    with pytest.raises(ValueError, match="utterance 1 is open already"):
        rig.scheduler.handle(command, 0.0)


def test_commands_for_whoever_has_ended_are_late_not_wrong() -> None:
    rig = started(LONG_ENOUGH, finished=True)
    rig.settle()
    rig.append(LONG_ENOUGH)
    rig.pause()
    assert rig.finish() == []
    rig.cancel()
    assert rig.step() is None
    assert rig.scheduler.num_utterances == 0


@pytest.mark.parametrize("num_steps", range(12))
def test_a_cancel_at_any_moment_leaves_the_others_and_the_slots_whole(num_steps: int) -> None:
    rig = started(LONG_ENOUGH, say(*WORDS[4:8]), finished=True, num_slots=2, use_drafts=False)
    run(rig, num_steps)
    if 1 not in rig.rules.ended:
        rig.step(between=rig.cancel)  # its result is late
        rig.scheduler.check()
    rig.settle()
    assert rig.text(2) == " ".join(WORDS[4:8])
    assert rig.scheduler.num_utterances == 0


def test_a_result_for_whoever_is_gone_does_not_reach_the_next_of_the_slot() -> None:
    rig = started(LONG_ENOUGH, finished=True, num_slots=1, use_drafts=False)
    run(rig, 2)

    def replace() -> None:
        rig.cancel()
        rig.open(2)
        rig.append(say("red", "green"), 2)
        rig.finish(2)

    rig.step(between=replace)
    rig.settle()
    assert rig.text(2) == "red green"


def test_a_failed_step_fails_its_own_utterances_and_no_others() -> None:
    rig = started(LONG_ENOUGH, say("red"), finished=True, encode_slice=Positions(1))
    rig.runner.fail_next = True
    rig.settle()
    failed = [event for event in rig.events if isinstance(event, UtteranceFailed)]
    assert [(event.utterance_id, event.message) for event in failed] == [(1, "told to fail")]
    assert rig.text(2) == "red"
    assert rig.metrics.failures == 1


@pytest.mark.parametrize("num_steps", range(7))
def test_a_step_of_any_kind_may_fail(num_steps: int) -> None:
    rig = started(LONG_ENOUGH, say(*WORDS[4:8]), finished=True, use_drafts=False)
    run(rig, num_steps)
    rig.runner.fail_next = True
    rig.settle()
    ended = [e for e in rig.events if isinstance(e, UtteranceFinished | UtteranceFailed)]
    assert len(ended) == 2
    assert any(isinstance(event, UtteranceFailed) for event in ended)
    assert rig.scheduler.num_utterances == 0


@pytest.mark.parametrize("options", [{"language": "xx"}, {"languages": ("en", "xx")}])
def test_a_language_that_the_model_does_not_know_fails_that_utterance(
    options: dict[str, Any],
) -> None:
    rig = started(say("red"))
    rig.open(2, **options)
    (failed,) = rig.events
    assert isinstance(failed, UtteranceFailed)
    assert "got 'xx', this model knows en" in failed.message
    rig.finish(1)
    rig.settle()
    assert rig.events[-1] == UtteranceFinished(UtteranceId(1))


def test_numbers_that_are_none_fail_only_their_own_utterance() -> None:
    rig = started(say("one", POISON), say("red", "blue"), finished=True)
    rig.settle()
    failed = [event for event in rig.events if isinstance(event, UtteranceFailed)]
    assert [event.utterance_id for event in failed] == [1]
    assert rig.text(2) == "red blue"


def test_a_lost_slot_is_noticed() -> None:
    rig = started(LONG_ENOUGH)
    rig.settle()
    rig.scheduler._holders.clear()
    with pytest.raises(AssertionError, match="1 slots are held, 0 known, 1 owned"):
        rig.scheduler.check()


def test_what_was_done_is_counted() -> None:
    rig = started(LONG_ENOUGH)
    rig.settle()
    rig.append(say(*WORDS[4:6]))
    rig.finish()
    rig.settle()
    metrics = rig.metrics
    assert (metrics.partials, metrics.finals) == (len(rig.partials()), 1)
    assert 0 < metrics.accepted <= metrics.drafted
    assert metrics.tokens >= len(rig.finals()[0].tokens)


# Under load.


def speak(rig: Rig, numbers: Sequence[int], seconds: float) -> None:
    """Some utterances go on in real time, with the rig's clock; steps take what they take."""
    chunk = say("red", "blue")
    until = rig.now + seconds
    due = rig.now
    while rig.now < until:
        if rig.now >= due:
            due += len(chunk) / SAMPLE_RATE
            for number in numbers:
                rig.append(chunk, number)
        elif rig.step() is None:
            rig.now = due


def test_partials_come_as_asked_while_there_is_time() -> None:
    rig = started(LONG_ENOUGH, LONG_ENOUGH)
    rig.step_s = 0.01
    speak(rig, [1, 2], 4.0)
    assert rig.metrics.rung == 0
    assert {partial.interval for partial in rig.partials()} == {samples_from_ms(400)}


def test_partials_come_less_often_under_load_and_as_asked_when_it_falls() -> None:
    everybody = range(1, 9)
    rig = started(*[LONG_ENOUGH] * 8, num_slots=8, encode_slice=Positions(1), encode_slice_ms=1)
    rig.step_s = 0.025
    speak(rig, everybody, 8.0)
    assert rig.metrics.rung > 0
    assert rig.partials(8)[-1].interval > samples_from_ms(600)
    assert rig.metrics.partial_interval_s > 0.6
    for number in everybody[1:]:
        rig.finish(number)
    speak(rig, [1], 6.0)
    assert rig.metrics.rung == 0
    assert rig.partials(1)[-1].interval == samples_from_ms(400)


def test_a_first_partial_does_not_wait_for_a_wide_interval() -> None:
    everybody = range(1, 9)
    rig = started(*[LONG_ENOUGH] * 8, num_slots=9, encode_slice=Positions(1), encode_slice_ms=1)
    rig.step_s = 0.04
    speak(rig, everybody, 6.0)
    rig.open(9)
    rig.append(LONG_ENOUGH, 9)
    speak(rig, everybody, 2.0)
    assert rig.partials(9)


def test_waiting_is_measured_from_the_wish_to_its_encode_step() -> None:
    rig = started(LONG_ENOUGH)
    rig.now = 5.0  # idle until here: not the job's waiting
    rig.finish(1)
    rig.now = 5.5
    rig.settle()
    assert rig.metrics.waits["final"].sum == pytest.approx(0.5)
    assert rig.metrics.waits["final"].count == 1


# All of it at once.

STRANGE = st.lists(st.sampled_from([MUMBLE, NOISE, POISON, *["pause"] * 3]), max_size=3)
SOUNDS = st.tuples(st.integers(0, 5), st.integers(5, 15), STRANGE, st.integers(0, 5599))
CHUNKS = st.sampled_from([6_400, 1_600, 20_000, 480_000])
OPTIONS = st.fixed_dictionaries(
    {
        "interim_results": st.sampled_from([True, True, False]),
        "append_only": st.sampled_from([True, True, False]),
        "timestamps": st.booleans(),
        "word_timestamps": st.booleans(),
        "max_segment": st.sampled_from([TWO_SECONDS, Samples(450_000)]),
        "interim_interval": st.sampled_from([samples_from_ms(100), samples_from_ms(400)]),
        "language": st.sampled_from(["de", None]),
        "context": st.sampled_from(["auto", "full", "trimmed"]),
    }
)
WHOM = st.integers(0, 3)


def heard(first: int, count: int, strange: list[str], cut_off: int) -> Audio:
    """`count` words, then anything else; the last of it may break off."""
    samples = say(*WORDS[first : first + count])
    rest = [silence(5600) if sound == "pause" else say(sound) for sound in strange]
    samples = np.concatenate([samples, *rest])
    return samples[: len(samples) - cut_off]


class SchedulerMachine(RuleBasedStateMachine):
    """Anything in any order: `Rig` checks every event, every step and the slots when idle."""

    @initialize(
        num_slots=st.integers(1, 3),
        drafts=st.booleans(),
        batch=st.integers(1, 4),
        run_ahead=st.integers(0, 1),
        partial_context=st.sampled_from(["trimmed", "incremental"]),
        options=st.lists(OPTIONS, min_size=2, max_size=4),
    )
    def begin(
        self,
        num_slots: int,
        drafts: bool,
        batch: int,
        run_ahead: int,
        partial_context: str,
        options: list[dict[str, Any]],
    ) -> None:
        self.rig = Rig(
            num_slots=num_slots,
            num_languages=3,
            use_drafts=drafts,
            max_batch=batch,
            run_ahead=run_ahead,
            partial_context=partial_context,
            look_back=Positions(8),
            encode_slice=Positions(256),
        )
        self.talking: list[int] = []
        self.finished: set[int] = set()
        for each in options:
            self.open(each)

    def one_of(self, whom: int) -> int | None:
        return self.talking[whom % len(self.talking)] if self.talking else None

    @rule(options=OPTIONS)
    def open(self, options: dict[str, Any]) -> None:
        number = len(self.talking) + len(self.finished) + len(self.rig.rules.cancelled) + 1
        self.rig.open(number, start=7 * number, **options)
        self.talking.append(number)

    @rule(whom=WHOM, sounds=SOUNDS, chunk=CHUNKS, count=st.sampled_from([9, 3, 1]))
    def speak(
        self, whom: int, sounds: tuple[int, int, list[str], int], chunk: int, count: int
    ) -> None:
        """In chunks, with the engine as quick as `count` steps for each."""
        number, samples = self.one_of(whom), heard(*sounds)
        for start in range(0, len(samples), chunk):
            if number is not None:
                self.rig.append(samples[start : start + chunk], number)
            run(self.rig, count)

    @rule(sounds=SOUNDS)
    def speak_all_at_once(self, sounds: tuple[int, int, list[str], int]) -> None:
        for number in self.talking:
            self.rig.append(heard(*sounds), number)

    @rule(whom=WHOM, count=st.integers(0, 12))
    def pause(self, whom: int, count: int) -> None:
        number = self.one_of(whom)
        if number is not None:
            self.rig.pause(number)
        run(self.rig, count)

    @rule(whom=WHOM)
    def finish(self, whom: int) -> None:
        number = self.one_of(whom)
        if number is not None:
            self.talking.remove(number)
            self.finished.add(number)
            self.rig.finish(number)

    @rule(whom=WHOM)
    def cancel(self, whom: int) -> None:
        number = self.one_of(whom)
        if number is not None:
            self.talking.remove(number)
            self.rig.cancel(number)

    @rule(whom=WHOM, does_finish=st.booleans())
    def end_while_a_step_runs(self, whom: int, does_finish: bool) -> None:
        self.rig.step(between=lambda: self.finish(whom) if does_finish else self.cancel(whom))

    @rule(whom=WHOM, sounds=SOUNDS)
    def speak_while_a_step_runs(self, whom: int, sounds: tuple[int, int, list[str], int]) -> None:
        number = self.one_of(whom)
        if number is not None:
            self.rig.step(between=lambda: self.rig.append(heard(*sounds), number))

    @rule()
    def fail_a_step(self) -> None:
        self.rig.runner.fail_next = True
        self.rig.step()
        self.rig.runner.fail_next = False

    @rule(count=st.integers(1, 30))
    def go_on(self, count: int) -> None:
        run(self.rig, count)

    @rule()
    def settle(self) -> None:
        self.rig.settle()

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        while self.talking:
            self.finish(0)
        self.rig.settle()
        cancelled = self.rig.rules.cancelled
        assert self.rig.rules.ended - cancelled == self.finished
        assert self.rig.scheduler.num_utterances == 0
        assert self.rig.scheduler.next_step(0.0) is None


SchedulerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
test_every_utterance_ends_once_whatever_happens = SchedulerMachine.TestCase
