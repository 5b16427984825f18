from math import inf

import pytest

from engine.assembly import Engine
from engine.audio.units import samples_from_seconds
from engine.bench.session_driver import Driven, Driver, Figures
from engine.bench.session_plan import Speech, Timeline, plan_commands, read_repeatedly
from engine.bench.virtual_clock import VirtualClock
from engine.events import UtteranceId
from engine.metrics import EngineMetrics
from tests.support.clips import REPOSITORY, TWO_SENTENCES, read_clip
from tests.support.engines import load_engine
from tests.support.workers import EMBEDDED_CONFIG

FIRST, SECOND = UtteranceId(1), UtteranceId(2)


@pytest.fixture
def engine() -> Engine:
    return load_engine(REPOSITORY / "engine" / "embedded", EMBEDDED_CONFIG)


def two_speeches() -> Timeline:
    """From 0.5 to 1.3 s and from 3 to 4 s; finals are asked for at 1.8 and 4.5 s."""
    read = read_repeatedly(read_clip(TWO_SENTENCES))
    speeches = {
        FIRST: Speech(samples_from_seconds(0.5), samples_from_seconds(1.3)),
        SECOND: Speech(samples_from_seconds(3.0), samples_from_seconds(4.0)),
    }
    dues = [
        due
        for utterance_id, speech in speeches.items()
        for due in plan_commands(speech, utterance_id, read)
    ]
    return Timeline(dues, speeches)


def drive(engine: Engine, *, wall_cap_s: float = inf) -> Driven:
    """What counts are the three seconds from 2 s on."""
    return Driver(engine, VirtualClock()).drive(two_speeches(), 2.0, 3.0, wall_cap_s)


def test_finals_that_were_asked_for_after_the_warm_up_count(engine: Engine) -> None:
    driven = drive(engine)
    assert driven.complete
    assert (driven.counted, driven.missing) == ({SECOND}, set())
    first, second = driven.heard[FIRST], driven.heard[SECOND]
    assert second.start_s - first.start_s == pytest.approx(2.5)
    for heard, seconds in ((first, 0.8), (second, 1.0)):
        assert heard.end_s - heard.start_s == pytest.approx(seconds)
        assert heard.final_s is not None
        assert heard.final_s >= heard.end_s + 0.5  # nobody asks before the endpoint silence is over
    # Whole steps end a little later; what the second utterance took lies between the readings.
    assert driven.after.at_s - driven.before.at_s == pytest.approx(3.0, abs=1.5)
    assert driven.after.tokens > driven.before.tokens
    assert driven.after.steps_since(driven.before, "EncodeStep")[0] > 0


def test_time_in_which_nothing_happens_is_skipped_and_the_engine_left_idle(engine: Engine) -> None:
    driven = drive(engine)
    assert 0.0 < driven.after.skipped_s - driven.before.skipped_s < 3.0
    assert engine.scheduler.num_utterances == 0


def test_a_level_that_takes_too_long_is_given_up_and_the_engine_left_idle(engine: Engine) -> None:
    driven = drive(engine, wall_cap_s=0.0)
    assert not driven.complete
    assert driven.counted == set()
    assert engine.scheduler.num_utterances == 0


def test_figures_are_told_apart_by_what_was_counted_before() -> None:
    metrics, clock = EngineMetrics(), VirtualClock(lambda: 5.0)
    metrics.record_step("DecodeStep", 3, 0.25)
    before = Figures.read(metrics, clock)
    metrics.record_step("DecodeStep", 4, 0.5)
    metrics.record_step("EncodeStep", 1, 2.0)
    metrics.tokens = 7
    clock.skip_to(8.0)
    after = Figures.read(metrics, clock)
    assert (after.at_s, after.skipped_s, after.tokens - before.tokens) == (8.0, 3.0, 7)
    assert after.steps_since(before, "DecodeStep") == (1, 4, 0.5)
    assert after.steps_since(before, "EncodeStep") == (1, 1, 2.0)
    assert after.steps_since(before, "VerifyStep") == (0, 0, 0.0)
