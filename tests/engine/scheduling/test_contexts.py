from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import (
    MAX_WINDOW_POSITIONS,
    MAX_WINDOW_SAMPLES,
    SAMPLES_PER_POSITION,
    Positions,
    positions_covering,
)
from engine.config import EngineConfig
from engine.events import Context, UtteranceOptions
from engine.scheduling.contexts import (
    CONTEXT_BUCKETS,
    EXTENSION_BUCKETS,
    ContextPolicy,
    Encoding,
)

STOCK = ContextPolicy.of(EngineConfig(), trained_trimmed=False)
TRAINED = ContextPolicy.of(EngineConfig(), trained_trimmed=True)
INCREMENTAL = EngineConfig(partial_context="incremental", look_back=Positions(32))
EXTENDING = ContextPolicy.of(INCREMENTAL, trained_trimmed=False)

windows = st.integers(1, MAX_WINDOW_SAMPLES)
kept_positions = st.integers(0, MAX_WINDOW_POSITIONS).map(Positions)


def test_buckets_rise_to_the_whole_window_in_steps_of_a_half_at_most() -> None:
    assert CONTEXT_BUCKETS[-1] == MAX_WINDOW_POSITIONS
    assert all(small < large <= 1.5 * small for small, large in pairwise(CONTEXT_BUCKETS))


@given(st.integers(1, MAX_WINDOW_SAMPLES), st.sampled_from([STOCK, TRAINED]))
def test_a_trimmed_context_is_the_least_bucket_that_holds_audio_and_margin(
    num_samples: int, policy: ContextPolicy
) -> None:
    context = policy.positions(num_samples, trimmed=True)
    needed = positions_covering(num_samples) + policy.margin
    assert context in CONTEXT_BUCKETS
    assert context >= min(needed, MAX_WINDOW_POSITIONS)
    assert all(size < needed for size in CONTEXT_BUCKETS if size < context)


@given(st.integers(1, MAX_WINDOW_SAMPLES))
def test_a_full_context_is_whispers_whatever_the_audio(num_samples: int) -> None:
    assert STOCK.positions(num_samples, trimmed=False) == MAX_WINDOW_POSITIONS


def test_the_margins_are_the_configurations() -> None:
    config = EngineConfig(context_margin=Positions(200), trained_context_margin=Positions(3))
    assert ContextPolicy.of(config, trained_trimmed=False).margin == 200
    assert ContextPolicy.of(config, trained_trimmed=True).margin == 3
    edge = 64 * SAMPLES_PER_POSITION
    exact = ContextPolicy("auto", True, Positions(0))
    assert exact.positions(edge, trimmed=True) == 64
    assert exact.positions(edge + 1, trimmed=True) == 96


@pytest.mark.parametrize(
    ("default", "requested", "trained", "final", "trimmed"),
    [
        ("auto", "auto", False, False, True),
        ("auto", "auto", False, True, False),
        ("auto", "auto", True, True, True),
        ("auto", "full", True, False, False),
        ("auto", "trimmed", False, True, True),
        ("full", "auto", True, False, False),
        ("trimmed", "auto", False, True, True),
        ("full", "trimmed", False, True, True),
        ("trimmed", "full", True, True, False),
    ],
)
def test_the_request_decides_then_the_configuration_then_the_checkpoint(
    default: Context, requested: Context, trained: bool, final: bool, trimmed: bool
) -> None:
    policy = ContextPolicy.of(EngineConfig(context=default), trained_trimmed=trained)
    assert policy.is_trimmed(requested, final=final) is trimmed


# Extensions.


def all_of(policy: ContextPolicy, num_samples: int, *, trimmed: bool) -> Encoding:
    return Encoding(Positions(0), policy.positions(num_samples, trimmed=trimmed))


def test_only_an_incremental_configuration_looks_back() -> None:
    assert STOCK.look_back is None
    assert EXTENDING.look_back == INCREMENTAL.look_back
    near = replace(INCREMENTAL, look_back=Positions(5))
    assert ContextPolicy.of(near, trained_trimmed=True).look_back == 5


def test_extension_buckets_rise_and_are_less_than_a_whole_window() -> None:
    assert all(small < large for small, large in pairwise(EXTENSION_BUCKETS))
    assert EXTENSION_BUCKETS[-1] < MAX_WINDOW_POSITIONS


def test_an_encoding_ends_with_its_window_s_context() -> None:
    assert Encoding(Positions(30), Positions(64)).context == 94


@given(windows, kept_positions, st.booleans())
def test_where_windows_are_not_extended_all_is_encoded(
    num_samples: int, kept: Positions, trimmed: bool
) -> None:
    assert STOCK.encoding(num_samples, trimmed=trimmed, kept=kept) == all_of(
        STOCK, num_samples, trimmed=trimmed
    )


@given(windows, kept_positions)
def test_a_full_context_is_never_extended(num_samples: int, kept: Positions) -> None:
    assert EXTENDING.encoding(num_samples, trimmed=False, kept=kept) == all_of(
        EXTENDING, num_samples, trimmed=False
    )


@given(windows, st.integers(0, INCREMENTAL.look_back + 1).map(Positions))
def test_where_little_or_nothing_was_kept_all_is_encoded(num_samples: int, kept: Positions) -> None:
    assert EXTENDING.encoding(num_samples, trimmed=True, kept=kept) == all_of(
        EXTENDING, num_samples, trimmed=True
    )


@given(st.data(), st.integers(0, 64).map(Positions), st.sampled_from([0, 16, 128]))
def test_an_extension_begins_a_look_back_before_what_is_new_and_holds_audio_and_margin(
    data: st.DataObject, look_back: Positions, margin: int
) -> None:
    """At the end of 30 s it begins earlier, and ends there."""
    policy = replace(EXTENDING, look_back=look_back, margin=Positions(margin))
    kept = data.draw(kept_positions)
    grown = data.draw(st.integers(0, 200))
    num_samples = min(MAX_WINDOW_SAMPLES, max(1, (kept + grown) * SAMPLES_PER_POSITION))
    encoding = policy.encoding(num_samples, trimmed=True, kept=kept)
    if encoding.start == 0:
        assert encoding == all_of(policy, num_samples, trimmed=True)
        return
    needed = positions_covering(num_samples) + policy.margin
    start = kept - look_back
    assert encoding.start == min(start, MAX_WINDOW_POSITIONS - encoding.width)
    assert encoding.start >= 2, "the convolutions look two positions to the left"
    assert min(needed, MAX_WINDOW_POSITIONS) <= encoding.context <= MAX_WINDOW_POSITIONS
    assert encoding.width in EXTENSION_BUCKETS
    narrower = [size for size in EXTENSION_BUCKETS if size < encoding.width]
    assert all(start + size < needed for size in narrower)
    assert encoding.width < policy.positions(num_samples, trimmed=True), "else nothing is saved"


@pytest.mark.parametrize("trained", [False, True])
def test_a_window_that_grows_by_the_usual_interval_is_extended_to_its_end(trained: bool) -> None:
    """Encoded whole only while that is little more than an extension; then by one width or two."""
    policy = ContextPolicy.of(INCREMENTAL, trained_trimmed=trained)
    interval = UtteranceOptions().interim_interval
    kept = Positions(0)
    encodings = []
    for num_samples in range(INCREMENTAL.first_partial, MAX_WINDOW_SAMPLES + 1, interval):
        encodings.append(policy.encoding(num_samples, trimmed=True, kept=kept))
        kept = positions_covering(num_samples)
    whole = [it for it in encodings if it.start == 0]
    extended = encodings[len(whole) :]
    assert all(it.start > 0 for it in extended)
    assert all(it.width <= EXTENSION_BUCKETS[-1] for it in whole)
    assert len(extended) > 0.9 * len(encodings)
    assert len({it.width for it in extended}) <= 2, "few shapes, so that rows share steps"
    assert encodings[-1].context == MAX_WINDOW_POSITIONS


def test_an_extension_at_the_end_of_thirty_seconds_reaches_further_back() -> None:
    kept = Positions(MAX_WINDOW_POSITIONS - 20)
    encoding = EXTENDING.encoding(MAX_WINDOW_SAMPLES, trimmed=True, kept=kept)
    assert encoding == Encoding(Positions(MAX_WINDOW_POSITIONS - 192), Positions(192))


def test_after_a_pause_longer_than_the_widest_extension_all_is_encoded() -> None:
    kept = Positions(100)
    far = (kept + EXTENSION_BUCKETS[-1]) * SAMPLES_PER_POSITION
    assert EXTENDING.encoding(far, trimmed=True, kept=kept).start == 0
    near = (kept + 25) * SAMPLES_PER_POSITION
    assert EXTENDING.encoding(near, trimmed=True, kept=kept).start > 0
