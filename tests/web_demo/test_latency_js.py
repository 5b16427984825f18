"""web_demo/latency.js against clients/latency.py, on listenings made by chance."""

from random import Random
from typing import Any

import msgspec
import pytest

from clients.latency import LatencyMeter
from stream_server.protocol import Final, ServerMessage, SpeechStopped
from tests.support.node import run_module

Happening = tuple[
    float, float | ServerMessage
]  # a reading, and audio sent up to there or a message


def listening(seed: int) -> list[Happening]:
    """Some minutes of speech: some of it cut, some without words, finals late now and then."""
    random = Random(seed)
    happenings: list[Happening] = []
    audio_s = delivered_at = 0.0
    while audio_s < 240:
        start = audio_s + random.uniform(0.1, 8)
        end = start + random.choice([0.4, 2.0, 5.0]) * random.uniform(0.5, 1.5)
        cut = random.uniform(start, end)
        while audio_s < end + 0.5:
            audio_s = round(audio_s + 0.04, 2)
            happenings.append((audio_s + random.uniform(0, 0.03), audio_s))
        spans = random.choice([[], [(start, end)], [(start, end)], [(start, cut), (cut, end)]])
        delivered_at = max(delivered_at, audio_s) + 0.05
        happenings.append((delivered_at, SpeechStopped(at=end)))
        for begin, finish in spans:
            delivered_at += random.choice([0.1, 0.4, 12.0])
            late_by = random.choice([0, 0.2, -0.04])
            happenings.append((delivered_at, final(begin, finish + late_by)))
    return sorted(happenings, key=lambda happening: happening[0])


def final(start: float, end: float) -> Final:
    return Final(
        segment=0,
        start=start,
        end=end,
        text="so",
        language="en",
        language_probability=1.0,
        confidence=1.0,
        no_speech_prob=0.0,
    )


def figures(happenings: list[Happening]) -> dict[str, Any]:
    meter = LatencyMeter()
    for now, what in happenings:
        if isinstance(what, float):
            meter.sent(what, now)
        else:
            meter.received(what, now)
    last = meter.latencies_s[-1] if meter.latencies_s else None
    return {"latencies_s": meter.latencies_s, "median_s": meter.median_s, "last_s": last}


def test_both_meters_find_the_same_latencies() -> None:
    listenings = [listening(seed) for seed in range(20)]
    answered = run_module(
        'import { LatencyMeter } from "./web_demo/latency.js";'
        "answer(given.map((happenings) => {"
        "  const meter = new LatencyMeter();"
        "  for (const [now, what] of happenings) {"
        '    if (typeof what === "number") meter.sent(what, now);'
        "    else meter.received(what, now);"
        "  }"
        "  return {latencies_s: meter.latenciesS, median_s: meter.medianS, last_s: meter.lastS};"
        "}));",
        msgspec.to_builtins(listenings),
    )
    expected = [figures(happenings) for happenings in listenings]
    assert min(len(each["latencies_s"]) for each in expected) > 10
    for found, each in zip(answered, expected, strict=True):
        assert found["latencies_s"] == each["latencies_s"]
        assert found["last_s"] == each["last_s"]
        assert found["median_s"] == pytest.approx(each["median_s"], rel=1e-12)
