from collections.abc import Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.load_plan import (
    MAX_CHUNK_SAMPLES,
    MIN_CHUNK_SAMPLES,
    SAMPLE_RATE,
    LoadShape,
    Part,
    PlanError,
    SessionPlan,
    Span,
    plan_load,
    plan_session,
)

BACKGROUND = 10 * SAMPLE_RATE
shapes = st.builds(
    LoadShape,
    sessions=st.integers(1, 12),
    seconds=st.floats(1, 90),
    warm_up_s=st.floats(0, 5),
    starts_per_s=st.floats(1, 100),
    duty=st.floats(0.05, 1),
    noise_share=st.floats(0, 1),
    seed=st.integers(),
)
clip_lengths = st.lists(st.integers(4_000, 30 * SAMPLE_RATE), min_size=1, max_size=6)


@given(shapes, clip_lengths)
def test_the_same_seed_gives_the_same_load(shape: LoadShape, clips: Sequence[int]) -> None:
    assert plan_load(shape, clips, BACKGROUND) == plan_load(shape, clips, BACKGROUND)


def test_another_seed_and_another_session_give_other_audio() -> None:
    plans = [
        plan_session(LoadShape(sessions=2, seconds=60, seed=seed), number, [48_000], BACKGROUND)
        for seed in (1, 2)
        for number in (0, 1)
    ]
    assert len({plan.parts for plan in plans}) == 4
    assert len({tuple(islice(plan.chunk_lengths(), 9)) for plan in plans}) == 4


@given(shapes, clip_lengths)
def test_everybody_joins_in_turn_and_speaks_to_one_common_end(
    shape: LoadShape, clips: Sequence[int]
) -> None:
    plans = plan_load(shape, clips, BACKGROUND)
    starts = [plan.starts_at_s for plan in plans]
    assert starts == sorted(starts)
    assert starts[-1] <= shape.sessions / shape.starts_per_s
    for plan in plans:
        end_s = plan.starts_at_s + plan.samples / SAMPLE_RATE
        assert end_s == pytest.approx(shape.ends_at_s, abs=1 / SAMPLE_RATE)
    assert shape.ends_at_s - shape.counts_from_s == pytest.approx(shape.seconds)


@given(shapes, clip_lengths)
def test_a_session_hears_stretches_that_the_clips_have(
    shape: LoadShape, clips: Sequence[int]
) -> None:
    for plan in plan_load(shape, clips, BACKGROUND):
        for number, part in enumerate(plan.parts):
            assert part.length > 0
            if part.clip is not None:
                assert part.offset + part.length <= clips[part.clip]
                assert part.offset == 0 or number == 0


@given(shapes, clip_lengths)
def test_a_session_without_speech_has_no_clip(shape: LoadShape, clips: Sequence[int]) -> None:
    plans = plan_load(shape, clips, BACKGROUND)
    silent = [plan for plan in plans if plan.kind != "speech"]
    assert len(silent) == int(shape.sessions * shape.noise_share)
    assert all(part.clip is None for plan in silent for part in plan.parts)
    for of_kind in (silent, [plan for plan in plans if plan.kind == "speech"]):
        assert sum(plan.msgpack for plan in of_kind) == len(of_kind) // 2


@pytest.mark.parametrize("duty", [0.2, 0.5, 0.9, 1.0])
def test_clips_fill_the_share_of_the_time_that_was_asked_for(duty: float) -> None:
    shape = LoadShape(sessions=40, seconds=600, duty=duty)
    clips = [3 * SAMPLE_RATE, 5 * SAMPLE_RATE, 8 * SAMPLE_RATE]
    plans = plan_load(shape, clips, BACKGROUND)
    said = sum(part.length for plan in plans for part in plan.parts if part.clip is not None)
    assert said / sum(plan.samples for plan in plans) == pytest.approx(duty, rel=0.05)


def test_sessions_do_not_all_begin_with_the_same_word() -> None:
    """Nor do all of them speak at the start: half of the time is pauses, then too."""
    plans = plan_load(LoadShape(sessions=400, seconds=20), [20 * SAMPLE_RATE], BACKGROUND)
    speaking = sum(plan.parts[0].clip is not None for plan in plans)
    assert speaking / len(plans) == pytest.approx(0.5, abs=0.1)
    assert len({plan.parts[0].offset for plan in plans}) > 390


def test_every_clip_has_its_turn_before_any_comes_again() -> None:
    plan = plan_session(LoadShape(sessions=1, seconds=300), 0, [SAMPLE_RATE] * 5, BACKGROUND)
    said = [part.clip for part in plan.parts if part.clip is not None]
    assert sorted(islice(said, 5)) == [0, 1, 2, 3, 4]
    assert said[:5] == said[5:10]


def test_spans_tell_where_clips_are_heard_and_whether_whole() -> None:
    plan = SessionPlan(
        number=0,
        kind="speech",
        msgpack=False,
        starts_at_s=0,
        parts=(
            Part(1, 16_000, 16_000),
            Part(None, 5, 8_000),
            Part(0, 0, 48_000),
            Part(1, 0, 4_000),
        ),
        chunk_seed="",
    )
    assert plan.samples == 76_000
    assert plan.spans([48_000, 32_000]) == [
        Span(1, 0.0, 1.0, whole=False),
        Span(0, 1.5, 4.5, whole=True),
        Span(1, 4.5, 4.75, whole=False),
    ]


@given(shapes)
def test_chunks_last_10_to_100_ms_and_differ(shape: LoadShape) -> None:
    plan = plan_session(shape, 0, [SAMPLE_RATE], BACKGROUND)
    lengths = list(islice(plan.chunk_lengths(), 200))
    assert MIN_CHUNK_SAMPLES == 160
    assert MAX_CHUNK_SAMPLES == 1600
    assert all(MIN_CHUNK_SAMPLES <= length <= MAX_CHUNK_SAMPLES for length in lengths)
    assert len(set(lengths)) > 100


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("sessions", 0, "sessions: got 0, takes 1 or more"),
        ("seconds", 0.0, "seconds: got 0.0, takes more than 0"),
        ("warm_up_s", -1.0, "warm-up-s: got -1.0, takes 0 or more"),
        ("starts_per_s", 0.0, "starts-per-s: got 0.0, takes more than 0"),
        ("duty", 0.0, "duty: got 0.0, takes more than 0, at most 1"),
        ("duty", 1.1, "duty: got 1.1, takes more than 0, at most 1"),
        ("noise_share", 1.5, "noise-share: got 1.5, takes 0 to 1"),
        ("seconds", float("nan"), "seconds: got nan, takes more than 0"),
    ],
)
def test_a_load_that_is_none_is_refused(setting: str, value: float, sentence: str) -> None:
    with pytest.raises(PlanError) as refused:
        LoadShape(**{"sessions": 1, "seconds": 1.0, setting: value})  # type: ignore[arg-type]
    assert str(refused.value) == sentence


def test_clips_without_a_sample_are_refused() -> None:
    with pytest.raises(PlanError, match="got none that has a sample"):
        plan_session(LoadShape(sessions=1, seconds=1), 0, [0, 0], BACKGROUND)
