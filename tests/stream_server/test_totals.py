from typing import get_args

import pytest

from stream_server import protocol
from stream_server.totals import LAG_BOUNDS, LATENCY_BOUNDS, RefusalReason, Totals, message_type


@pytest.mark.parametrize("bounds", [LATENCY_BOUNDS, LAG_BOUNDS])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_everything_that_can_be_counted_is_there_from_the_start() -> None:
    totals = Totals()
    assert set(totals.refused) == set(get_args(RefusalReason))
    assert set(totals.errors) == set(get_args(protocol.ErrorCode))
    assert set(totals.messages) == {
        "ready", "resumed", "speech_started", "speech_stopped", "ack", "partial", "final",
        "flushed", "warning", "error", "done",
    }  # fmt: skip
    assert not any((*totals.refused.values(), *totals.errors.values(), *totals.messages.values()))


def test_a_message_is_called_what_it_is_called_on_the_wire() -> None:
    assert message_type(protocol.SpeechStopped) == "speech_stopped"
    assert message_type(protocol.WarningMessage) == "warning"


def test_two_applications_count_apart() -> None:
    one = Totals()
    one.errors["bad_message"] += 1
    one.final_latency.observe(0.5)
    assert Totals() != one
    assert Totals() == Totals()
