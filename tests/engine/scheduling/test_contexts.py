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
from engine.events import Context
from engine.scheduling.contexts import CONTEXT_BUCKETS, ContextPolicy

STOCK = ContextPolicy.of(EngineConfig(), trained_trimmed=False)
TRAINED = ContextPolicy.of(EngineConfig(), trained_trimmed=True)


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
