"""One utterance alone, through the scheduler and a runner that hears words in samples."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audio.units import MAX_WINDOW_POSITIONS, Samples, samples_from_ms
from engine.events import (
    HypothesisUpdated,
    SegmentClosed,
    UtteranceFailed,
    UtteranceFinished,
)
from engine.scheduling.steps import (
    AlignStep,
    DecodeStep,
    EncodeStep,
    PrefillRow,
    PrefillStep,
    VerifyRow,
    VerifyStep,
)
from engine.traits import CheckpointTraits
from tests.support.fake_runner import (
    MUMBLE,
    NOISE,
    POISON,
    WORD_SAMPLES,
    WORDS,
    Audio,
    Rig,
    hum,
    say,
    silence,
)

STOCK = CheckpointTraits()
CHUNK = samples_from_ms(100)
TWO_SECONDS = samples_from_ms(2000)
SENTENCE_PAUSE = silence(6400)


def speak(rig: Rig, audio: Audio, chunk: int = CHUNK) -> None:
    """Append `audio` in real time: the engine is idle before the next chunk comes."""
    for start in range(0, len(audio), chunk):
        rig.append(audio[start : start + chunk])
        rig.settle()


def transcribed(audio: Audio, *, rig: Rig | None = None, chunk: int = CHUNK, **options: Any) -> Rig:
    rig = rig or Rig()
    rig.open(**options)
    speak(rig, audio, chunk)
    rig.finish()
    rig.settle()
    assert isinstance(rig.events[-1], UtteranceFinished)
    return rig


def fed_rows(rig: Rig) -> list[PrefillRow | VerifyRow]:
    """First passes of all decodes, in order."""
    rows: list[PrefillRow | VerifyRow] = []
    for step in rig.runner.steps:
        if isinstance(step, PrefillStep):
            rows += [row for row in step.rows if not row.languages]
        elif isinstance(step, VerifyStep):
            rows += [row for row in step.rows if row.start == 0]
    return rows


def encoded(rig: Rig) -> list[tuple[int, int]]:
    """Samples and context of all encodes, in order."""
    steps = [step for step in rig.runner.steps if isinstance(step, EncodeStep)]
    return [(len(row.samples), step.context) for step in steps for row in step.rows]


# Partials.


def test_partials_follow_a_grid_from_the_first_partial_on() -> None:
    rig = transcribed(say(*WORDS[:8]), interim_interval=samples_from_ms(400))
    ends = [partial.end for partial in rig.partials()]
    assert ends == [samples_from_ms(ms) for ms in (800, 1200, 1600, 2000, 2400, 2800)]


def test_the_grid_hangs_on_the_start_of_the_utterance() -> None:
    rig = transcribed(say(*WORDS[:8]), start=123_456)
    assert rig.partials()[0].start == 123_456
    assert rig.partials()[0].end == 123_456 + samples_from_ms(800)


def test_stable_text_follows_the_hypothesis_word_by_word() -> None:
    rig = transcribed(say(*WORDS[:8]))
    assert rig.partials()[-1].stable_text.startswith("zero one two three")
    ends = [partial.stable_end for partial in rig.partials()]
    assert ends == sorted(ends)
    assert rig.finals()[0].text == "zero one two three four five six seven."


def test_committed_words_are_forced_on_later_decodes() -> None:
    rig = transcribed(say(*WORDS[:8]))
    last = fed_rows(rig)[-1]
    stable = last.tokens[last.sampling.begin :]
    assert rig.tokenizer.decode(stable).lstrip() == rig.partials()[-1].stable_text


def test_without_append_only_nothing_is_committed_and_the_final_is_the_free_decode() -> None:
    rig = transcribed(say(*WORDS[:8]), append_only=False)
    assert all(partial.stable_text == "" for partial in rig.partials())
    assert all(len(row.tokens) == row.sampling.begin for row in fed_rows(rig))
    assert rig.text() == " ".join(WORDS[:8])


def test_without_interim_results_there_is_nothing_but_the_final() -> None:
    rig = Rig()
    rig.open(interim_results=False)
    speak(rig, say(*WORDS[:4]))
    assert rig.runner.steps == []
    rig.pause()
    rig.step()  # the early final is under way when speech goes on
    speak(rig, say(*WORDS[4:8]))
    rig.finish()
    rig.settle()
    assert rig.partials() == []
    assert rig.text() == " ".join(WORDS[:8])


def test_a_hypothesis_that_a_final_would_not_keep_commits_nothing() -> None:
    rig = transcribed(say(MUMBLE, MUMBLE, MUMBLE, MUMBLE, MUMBLE))
    assert rig.partials()
    assert all(partial.stable_text == "" for partial in rig.partials())


def test_drafts_cost_a_fraction_of_the_passes_and_change_nothing() -> None:
    audio = say(*WORDS, *WORDS[:10])
    with_drafts, without = Rig(), Rig(use_drafts=False)
    for rig in (with_drafts, without):
        transcribed(audio, rig=rig, append_only=False)
    assert [event for event in with_drafts.events if isinstance(event, SegmentClosed)] == [
        event for event in without.events if isinstance(event, SegmentClosed)
    ]
    assert [(p.end, p.text) for p in with_drafts.partials()] == [
        (p.end, p.text) for p in without.partials()
    ]
    assert len(with_drafts.runner.steps) < len(without.runner.steps)
    assert with_drafts.metrics.accepted > 0.8 * with_drafts.metrics.drafted


# Pauses and finals.


def test_the_final_of_a_paused_utterance_is_published_at_once() -> None:
    rig = Rig()
    rig.open()
    speak(rig, say(*WORDS[:5]))
    rig.pause()
    rig.settle()
    assert rig.finals() == []
    closed, finished = rig.finish()
    assert isinstance(closed, SegmentClosed)
    assert closed.text == "zero one two three four."
    assert isinstance(finished, UtteranceFinished)
    assert rig.step() is None


def test_a_pause_without_interim_results_still_computes_the_final_early() -> None:
    rig = Rig()
    rig.open(interim_results=False)
    speak(rig, say(*WORDS[:5]))
    rig.pause()
    assert rig.settle() == []
    assert len(rig.finish()) == 2


def test_audio_after_a_pause_takes_the_early_final_back() -> None:
    rig = Rig()
    rig.open()
    speak(rig, say(*WORDS[:5]))
    rig.pause()
    rig.settle()
    speak(rig, say(*WORDS[5:8]))
    assert rig.finish() == []
    rig.settle()
    assert [final.text for final in rig.finals()] == ["zero one two three four five six seven."]


@pytest.mark.parametrize("num_steps", range(5))
def test_audio_during_an_early_final_makes_it_a_partial(num_steps: int) -> None:
    rig = Rig(use_drafts=False)
    rig.open()
    speak(rig, say(*WORDS[:5]))
    rig.pause()
    for _ in range(num_steps):
        rig.step()
    speak(rig, say(*WORDS[5:8]))
    rig.finish()
    rig.settle()
    assert rig.text() == " ".join(WORDS[:8])
    assert len(rig.finals()) == 1


@pytest.mark.parametrize("num_steps", range(5))
def test_audio_and_finish_during_an_early_final_lose_nothing(num_steps: int) -> None:
    rig = Rig(use_drafts=False)
    rig.open()
    rig.append(say(*WORDS[:5]))
    rig.pause()
    for _ in range(num_steps):
        rig.step()
    rig.append(say(*WORDS[5:8]))
    rig.finish()
    rig.settle()
    assert rig.text() == " ".join(WORDS[:8])


def test_a_finish_during_the_early_final_waits_for_it() -> None:
    rig = Rig()
    rig.open()
    rig.append(say(*WORDS[:5]))
    rig.pause()
    rig.step()
    assert rig.finish() == []
    rig.settle()
    assert rig.text() == " ".join(WORDS[:5])
    assert len(encoded(rig)) == 1


def test_an_utterance_without_audio_finishes_without_a_segment() -> None:
    rig = Rig()
    rig.open()
    assert [type(event) for event in rig.finish()] == [UtteranceFinished]


def test_a_short_word_gets_a_final_without_any_partial() -> None:
    rig = transcribed(say("one"))
    assert (rig.partials(), rig.text()) == ([], "one")


# What is no speech, or not decoded well.


@pytest.mark.parametrize("word_timestamps", [False, True])
def test_silence_gives_an_empty_final_and_no_partial(word_timestamps: bool) -> None:
    rig = transcribed(silence(40_000), word_timestamps=word_timestamps)
    assert rig.partials() == []
    (final,) = rig.finals()
    assert (final.text, final.confidence, final.words) == ("", 0.0, ())
    assert final.no_speech_prob > 0.9


def test_silence_is_decoded_once_for_each_window() -> None:
    rig = Rig()
    rig.open()
    rig.append(silence(samples_from_ms(800)))
    rig.settle()
    assert len(encoded(rig)) == 1
    rig.append(silence(samples_from_ms(100)))
    assert rig.settle() == []
    assert len(encoded(rig)) == 1


def test_an_early_final_of_silence_brings_no_partial() -> None:
    rig = Rig()
    rig.open()
    rig.append(silence(20_000))
    rig.pause()
    assert rig.settle() == []
    assert rig.finish()[:1] == rig.finals()
    assert rig.finals()[0].text == ""


def test_the_ladder_of_a_stock_checkpoint_is_full_context_then_rising_temperatures() -> None:
    rig = transcribed(say(MUMBLE), rig=Rig(traits=STOCK), context="trimmed")
    assert [context for _, context in encoded(rig)] == [160, MAX_WINDOW_POSITIONS]
    assert [row.sampling.temperature for row in fed_rows(rig)] == [0.0, 0.0, 0.4, 0.8]
    assert rig.metrics.retries == 3


def test_the_ladder_of_a_trained_checkpoint_is_rising_temperatures_alone() -> None:
    rig = transcribed(say(MUMBLE))
    assert len(encoded(rig)) == 1
    assert [row.sampling.temperature for row in fed_rows(rig)] == [0.0, 0.4, 0.8]
    assert len({row.sampling.seed for row in fed_rows(rig)}) == 3


def test_a_stock_checkpoint_encodes_partials_trimmed_and_finals_in_full() -> None:
    rig = transcribed(say(*WORDS[:4]), rig=Rig(traits=STOCK))
    *partials, final = [context for _, context in encoded(rig)]
    assert all(context < MAX_WINDOW_POSITIONS for context in partials)
    assert final == MAX_WINDOW_POSITIONS


def test_partials_are_never_retried() -> None:
    rig = Rig()
    rig.open()
    rig.append(say(MUMBLE, MUMBLE, MUMBLE))
    rig.settle()
    assert [row.sampling.temperature for row in fed_rows(rig)] == [0.0]
    assert len(rig.partials()) == 1


def test_a_loop_is_retried_without_prompt_and_then_cut_where_it_began() -> None:
    rig = transcribed(say("one", "two", NOISE), interim_results=False, prompt="hello")
    with_prompt = [row.sot_index > 0 for row in fed_rows(rig)]
    assert with_prompt == [True, False, False]
    assert rig.finals()[0].text == "one two la"


def test_a_loop_that_a_higher_temperature_breaks_is_gone() -> None:
    rig = Rig()
    rig.runner.loops_below = 0.4
    transcribed(say("one", "two", NOISE), rig=rig, interim_results=False)
    final = rig.finals()[0]
    assert (final.text, final.temperature) == ("one two la.", 0.4)


def test_of_failed_attempts_one_that_did_not_loop_is_kept() -> None:
    rig = Rig()
    rig.runner.loops_below = 0.4
    transcribed(say(NOISE, MUMBLE), rig=rig, interim_results=False)
    # The looping attempt was surer of the little it said.
    assert rig.finals()[0].text == "la uh."


def test_numbers_that_are_none_fail_the_utterance() -> None:
    rig = Rig()
    rig.open()
    speak(rig, say("one", "two", POISON, "three"))
    assert isinstance(rig.events[-1], UtteranceFailed)
    assert "finite" in rig.events[-1].message
    assert rig.metrics.failures == 1


# Cuts.


@pytest.mark.parametrize("interim_results", [True, False])
@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("word_timestamps", [True, False])
def test_a_long_utterance_is_cut_without_losing_or_doubling_a_word(
    interim_results: bool, timestamps: bool, word_timestamps: bool
) -> None:
    words = [*WORDS, *WORDS]
    audio = np.concatenate([say(*words[:7]), SENTENCE_PAUSE, say(*words[7:])])
    rig = transcribed(
        audio,
        start=500,
        max_segment=TWO_SECONDS,
        interim_results=interim_results,
        timestamps=timestamps,
        word_timestamps=word_timestamps,
    )
    assert rig.text() == " ".join(words)
    finals = rig.finals()
    assert (finals[0].start, finals[-1].end) == (500, 500 + len(audio))
    assert all(before.end == after.start for before, after in pairwise(finals))
    assert all(final.end - final.start <= TWO_SECONDS for final in finals)
    if word_timestamps:
        for final in finals:
            assert " ".join(word.text for word in final.words) == final.text


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("silent_after", [-1, 0, 1])
def test_the_deepest_pause_wins_unless_words_before_the_cut_were_promised(
    timestamps: bool, silent_after: int
) -> None:
    def spoken(silent: int) -> Rig:
        parts = [
            np.concatenate([say(word, gap=0), (silence if index == silent else hum)(1600)])
            for index, word in enumerate(WORDS[:8])
        ]
        return transcribed(
            np.concatenate(parts),
            rig=Rig(cut_room=Samples(0)),
            max_segment=TWO_SECONDS,
            timestamps=timestamps,
        )

    promised = [partial for partial in spoken(-1).partials() if partial.segment == 0][-1]
    num_promised = len(promised.stable_text.split())
    assert num_promised == 4
    rig = spoken(num_promised - 1 + silent_after)
    num_words = len(rig.finals()[0].text.split())
    if silent_after >= 0:
        assert num_words == num_promised + silent_after
    assert num_words >= num_promised
    assert rig.text() == " ".join(WORDS[:8])


def test_where_a_segment_may_be_cut_nothing_is_promised() -> None:
    def last_promise(cut_room: int) -> HypothesisUpdated:
        rig = transcribed(
            say(*WORDS[:8]), rig=Rig(cut_room=Samples(cut_room)), max_segment=TWO_SECONDS
        )
        return [partial for partial in rig.partials() if partial.segment == 0][-1]

    half = TWO_SECONDS // 2
    assert last_promise(half).stable_end <= half < last_promise(0).stable_end


def test_what_a_cut_leaves_over_is_the_draft_of_the_next_segment() -> None:
    rig = transcribed(say(*WORDS[:8]), max_segment=TWO_SECONDS, interim_results=False)
    cut_off, rest = fed_rows(rig)
    assert isinstance(cut_off, PrefillRow)
    assert isinstance(rest, VerifyRow)
    left_over = rig.tokenizer.decode(rest.draft).strip(" .")
    assert left_over
    assert rig.finals()[1].text.startswith(left_over)


def test_a_checkpoint_good_for_less_is_cut_earlier() -> None:
    rig = Rig(traits=CheckpointTraits(trimmed_context=True, max_window=TWO_SECONDS))
    transcribed(say(*WORDS), rig=rig)
    assert all(final.end - final.start <= TWO_SECONDS for final in rig.finals())
    assert rig.text() == " ".join(WORDS)


def test_a_cut_carries_the_prompt_and_the_text_before_it() -> None:
    rig = transcribed(
        say(*WORDS[:12]), max_segment=TWO_SECONDS, interim_results=False, prompt="Numbers:"
    )
    prompts = []
    for row in fed_rows(rig):
        assert row.tokens[0] == rig.tokenizer.sot_prev
        prompts.append(rig.tokenizer.decode(row.tokens[1 : row.sot_index]).strip())
    texts = [final.text for final in rig.finals()]
    assert prompts == ["Numbers:", f"Numbers: {texts[0]}", f"Numbers: {texts[1]}"]


def test_a_checkpoint_that_does_not_carry_text_gets_the_prompt_alone() -> None:
    rig = Rig(traits=CheckpointTraits(trimmed_context=True, carries_text=False))
    transcribed(
        say(*WORDS[:12]), rig=rig, max_segment=TWO_SECONDS, interim_results=False, prompt="Numbers:"
    )
    prompts = {rig.tokenizer.decode(row.tokens[: row.sot_index]).strip() for row in fed_rows(rig)}
    assert prompts == {"Numbers:"}


def test_a_text_that_looped_is_no_prompt() -> None:
    rig = transcribed(
        say("one", "two", NOISE, *WORDS[3:9]), max_segment=TWO_SECONDS, interim_results=False
    )
    assert rig.finals()[0].text == "one two la"
    *attempts, next_segment = fed_rows(rig)[:4]
    assert [row.sampling.temperature for row in attempts] == [0.0, 0.4, 0.8]
    assert next_segment.sot_index == 0


def test_long_silence_is_cut_into_empty_segments() -> None:
    rig = transcribed(silence(100_000), max_segment=TWO_SECONDS)
    assert {final.text for final in rig.finals()} == {""}
    assert 3 <= len(rig.finals()) <= 6
    assert rig.finals()[-1].end == 100_000


def test_the_cut_of_a_closed_timestamp_span_needs_no_alignment() -> None:
    audio = np.concatenate([say("one", "two"), SENTENCE_PAUSE, say(*WORDS[3:9])])
    rig = Rig()
    rig.open(max_segment=TWO_SECONDS, timestamps=True)
    rig.append(audio)
    while not rig.finals():
        rig.step()
    (first,) = rig.finals()
    assert first.text == "one two"
    assert [(span.start, span.text) for span in first.spans] == [(0, "one two")]
    assert first.end == -(-(2 * WORD_SAMPLES + 1600) // 320) * 320
    assert not any(isinstance(step, AlignStep) for step in rig.runner.steps)


def test_what_is_stable_is_not_given_to_the_next_segment() -> None:
    """The span that is closed ends before words that were promised already."""
    audio = np.concatenate([say("one"), SENTENCE_PAUSE, say(*WORDS[3:12])])
    rig = transcribed(audio, max_segment=Samples(40_000), timestamps=True)
    assert len(rig.finals()) > 1
    assert rig.text() == " ".join(["one", *WORDS[3:12]])


# Language.


def test_a_told_language_is_forced_and_certain() -> None:
    rig = transcribed(say("one", "two"), rig=Rig(num_languages=3), language="de")
    assert (rig.finals()[0].language, rig.finals()[0].language_probability) == ("de", 1.0)
    assert all(rig.tokenizer.languages["de"] in row.tokens for row in fed_rows(rig))


def test_a_language_is_detected_until_enough_was_heard() -> None:
    rig = Rig(num_languages=3)
    rig.runner.language = "de"
    rig.open()
    speak(rig, say(*WORDS[:4]))
    assert {partial.language for partial in rig.partials()} == {"de"}
    rig.runner.language = "zh"  # detection on little speech may flip
    speak(rig, say(*WORDS[4:10]))
    rig.runner.language = "en"  # on much speech nobody asks any more
    speak(rig, say(*WORDS[10:12]))
    rig.finish()
    rig.settle()
    final = rig.finals()[0]
    assert (final.language, final.language_probability) == ("zh", 0.9)


def test_nothing_is_committed_while_the_language_may_still_change() -> None:
    rig = Rig(num_languages=3, language_lock=samples_from_ms(2000))
    transcribed(say(*WORDS[:12]), rig=rig)
    for partial in rig.partials():
        if partial.end <= samples_from_ms(2000):
            assert partial.stable_text == ""
    assert rig.partials()[-1].stable_text


def test_an_early_final_that_was_taken_back_does_not_lock_the_language() -> None:
    rig = Rig(num_languages=3)
    rig.runner.language = "zh"
    rig.open()
    rig.append(say("one"))
    rig.pause()
    rig.settle()
    rig.runner.language = "de"
    speak(rig, say(*WORDS[2:12]))
    assert rig.partials()[-1].language == "de"


def test_detection_is_limited_to_the_allowed_languages() -> None:
    rig = Rig(num_languages=3)
    rig.runner.language = "de"
    transcribed(say("one", "two"), rig=rig, languages=("en", "zh"))
    detections = [
        row
        for step in rig.runner.steps
        if isinstance(step, PrefillStep)
        for row in step.rows
        if row.languages
    ]
    assert detections
    assert rig.finals()[0].language == "en"


def test_one_allowed_language_needs_no_detection() -> None:
    rig = transcribed(say("one"), rig=Rig(num_languages=3), languages=("zh",))
    assert rig.finals()[0].language == "zh"
    assert rig.finals()[0].language_probability == 1.0


def test_a_poisoned_detection_fails_the_utterance() -> None:
    rig = Rig(num_languages=3)
    rig.open()
    speak(rig, say("one", "two", POISON, "three"))
    assert isinstance(rig.events[-1], UtteranceFailed)


def test_the_task_is_forced() -> None:
    rig = transcribed(say("one"), task="translate")
    assert all(rig.tokenizer.translate in row.tokens for row in fed_rows(rig))


# What a final holds.


def test_word_times_and_spans_lie_on_the_sessions_clock() -> None:
    audio = np.concatenate([say("one", "two"), SENTENCE_PAUSE, say("three")])
    rig = transcribed(audio, start=1_000_000, timestamps=True, word_timestamps=True)
    (final,) = rig.finals()
    assert [word.text for word in final.words] == ["one", "two", "three"]
    assert final.words[0].start == 1_000_000
    assert all(a.end <= b.start for a, b in pairwise(final.words))
    assert all(0 < word.confidence <= 1 for word in final.words)
    assert [span.text for span in final.spans] == ["one two", "three"]
    assert final.spans[0].start == 1_000_000
    assert final.spans[-1].end == final.end


def test_the_budget_of_tokens_grows_with_the_audio() -> None:
    rig = transcribed(say(NOISE), rig=Rig(repetition_guard=False), interim_results=False)
    seconds = (WORD_SAMPLES + 1600) / 16_000
    assert len(rig.finals()[0].tokens) == 16 + int(25 * seconds)
    steps = [step for step in rig.runner.steps if isinstance(step, DecodeStep)]
    assert len(steps) % 3 == 0  # three attempts


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([*WORDS, MUMBLE, "pause"]), min_size=1, max_size=14),
    st.lists(st.integers(1, 20_000), min_size=1, max_size=10),
    st.booleans(),
    st.booleans(),
)
def test_any_chunking_of_the_same_audio_gives_the_same_finals(
    words: list[str], sizes: list[int], append_only: bool, timestamps: bool
) -> None:
    audio = np.concatenate(
        [SENTENCE_PAUSE if word == "pause" else say(word) for word in words] + [silence(0)]
    )
    options = {
        "max_segment": TWO_SECONDS,
        "append_only": append_only,
        "timestamps": timestamps,
        "word_timestamps": True,
    }

    def finals(chunks: list[int]) -> list[tuple[Any, ...]]:
        rig = Rig()
        rig.open(**options)
        at = 0
        for size in chunks:
            rig.append(audio[at : at + size])
            rig.settle()
            at += size
        rig.append(audio[at:])
        rig.finish()
        rig.settle()
        return [(it.segment, it.start, it.end, it.text, it.words, it.spans) for it in rig.finals()]

    assert finals(sizes) == finals([])


def test_a_partial_is_no_promise_beyond_its_stable_text() -> None:
    rig = transcribed(say(*WORDS[:6]))
    updates = [event for event in rig.events if isinstance(event, HypothesisUpdated)]
    assert any(not rig.finals()[0].text.startswith(update.text) for update in updates)
