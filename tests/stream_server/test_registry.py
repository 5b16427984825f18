from itertools import count

import pytest

from engine.audio.units import Samples
from stream_server.registry import (
    LEAST_DUTY,
    REMEMBERED_AUDIO,
    Registry,
    SpeechShare,
    measured_capacity,
)


def test_every_session_has_its_own_id_and_token() -> None:
    registry = Registry(100)
    admissions = [registry.admit() for _ in range(100)]
    secrets = {name for one in admissions if one for name in (one.session_id, one.token)}
    assert len(secrets) == 200
    assert all(len(secret) >= 22 for secret in secrets)


def test_nobody_is_admitted_beyond_capacity_until_somebody_leaves() -> None:
    registry = Registry(2)
    first, second = registry.admit(), registry.admit()
    assert first is not None
    assert second is not None
    assert registry.admit() is None
    assert len(registry) == 2
    registry.release(first)
    assert registry.admit() is not None
    assert registry.admit() is None


def test_a_closed_registry_admits_nobody_and_still_lets_go() -> None:
    tokens = count()
    registry = Registry(2, new_token=lambda: str(next(tokens)))
    admission = registry.admit()
    assert admission is not None
    assert (admission.session_id, admission.token) == ("0", "1")
    registry.close()
    assert registry.admit() is None
    registry.release(admission)
    assert len(registry) == 0


def test_capacity_is_what_the_device_has_over_what_a_session_takes() -> None:
    # 25 ms for a second of speech, half of the audio speech: 12.5 ms a second and session.
    assert measured_capacity(0.025, 0.5, 64) == 80
    assert measured_capacity(0.025, 1.0, 64) == 40
    assert measured_capacity(5.0, 1.0, 64) == 1  # one is always tried


def test_no_more_are_let_in_than_can_speak_at_once_in_the_slots_there_are() -> None:
    assert measured_capacity(0.025, 0.5, 16) == 32
    assert measured_capacity(0.025, 0.5, 1000) == 80


def test_before_speech_was_measured_nothing_is_known() -> None:
    assert measured_capacity(0.0, 0.5, 64) is None


def test_silence_until_now_does_not_promise_silence() -> None:
    assert measured_capacity(0.025, 0.0, 64) == measured_capacity(0.025, LEAST_DUTY, 64)
    assert measured_capacity(0.025, 0.0, 64) != measured_capacity(0.025, 2 * LEAST_DUTY, 64)


@pytest.mark.parametrize(("capacity", "places"), [(None, 5), (2, 2), (9, 5)])
def test_the_measured_capacity_counts_below_the_hard_cap(capacity: int | None, places: int) -> None:
    registry = Registry(5)
    registry.capacity = capacity
    assert registry.places == places
    admissions = [registry.admit() for _ in range(6)]
    assert sum(admission is not None for admission in admissions) == places


def test_sessions_that_are_in_stay_in_when_capacity_falls() -> None:
    registry = Registry(5)
    first, second = registry.admit(), registry.admit()
    registry.capacity = 1
    assert len(registry) == 2
    assert first is not None
    assert second is not None
    registry.release(first)
    assert registry.admit() is None
    registry.release(second)
    assert registry.admit() is not None


def test_the_share_of_speech_is_that_of_recent_audio() -> None:
    share = SpeechShare()
    assert share.update(Samples(0), Samples(0)) == 0.0
    night = 100 * REMEMBERED_AUDIO
    assert share.update(Samples(0), Samples(night)) == 0.0
    day = Samples(night + 5 * REMEMBERED_AUDIO)
    assert share.update(Samples(5 * REMEMBERED_AUDIO // 2), day) == pytest.approx(0.5, abs=0.01)


def test_asking_for_the_share_again_changes_nothing() -> None:
    share = SpeechShare()
    first = share.update(Samples(300), Samples(1000))
    assert first == pytest.approx(0.3)
    assert share.update(Samples(300), Samples(1000)) == first
