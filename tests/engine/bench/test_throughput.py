from dataclasses import replace

import numpy as np
import pytest

from engine.audio.units import SAMPLE_RATE
from engine.bench.throughput import REQUEST_SECONDS, cut_requests, measure
from tests.support.clips import TWO_SENTENCES, read_clip
from tests.support.workers import EMBEDDED_CONFIG

LENGTH = REQUEST_SECONDS * SAMPLE_RATE


def test_requests_are_cut_one_behind_the_other_and_then_again() -> None:
    recording = np.arange(2.5 * LENGTH, dtype=np.float32)
    requests = cut_requests([recording[:100], recording[100:]], 3)
    assert [int(request[0]) for request in requests] == [0, LENGTH, 0]
    for request in requests:
        np.testing.assert_array_equal(request, np.arange(LENGTH) + request[0])


def test_a_recording_that_is_too_short_is_repeated() -> None:
    (request,) = cut_requests([np.arange(0.4 * LENGTH, dtype=np.float32)], 1)
    assert len(request) == LENGTH
    np.testing.assert_array_equal(request[int(0.4 * LENGTH) :][:100], np.arange(100))


def test_the_engine_and_transformers_are_timed_on_the_same_requests() -> None:
    rows = measure(replace(EMBEDDED_CONFIG, max_new_tokens=20), [read_clip(TWO_SENTENCES)], (2,))
    assert [row["engine"] for row in rows] == [
        "starling, trimmed",
        "starling, full",
        "transformers",
    ]
    for row in rows:
        assert row["requests"] == 2
        assert row["requests / s"] == pytest.approx(2 / row["seconds"])
        assert row["x real time"] == pytest.approx(2 * REQUEST_SECONDS / row["seconds"])
