from engine.assembly import build_engine
from engine.audio.units import SAMPLE_RATE
from engine.bench.partials import measure
from tests.support.clips import TWO_SENTENCES, read_clip
from tests.support.workers import EMBEDDED_CONFIG


def test_both_ways_of_encoding_are_measured_by_the_length_of_windows() -> None:
    clip = read_clip(TWO_SENTENCES)[: 4 * SAMPLE_RATE]
    rows = measure(build_engine, EMBEDDED_CONFIG, [clip], 400)
    assert {row["partials"] for row in rows} == {"trimmed", "incremental"}
    assert {row["windows up to, s"] for row in rows} == {2.5, 5.0}
    by_context = {
        context: sum(row["number"] for row in rows if row["partials"] == context)
        for context in ("trimmed", "incremental")
    }
    assert by_context["trimmed"] == by_context["incremental"] == 9
    for row in rows:
        assert 0 < row["encode ms"] < row["all ms"]
        assert 0 < row["decode ms"] < row["all ms"]
        assert 0 <= row["words unlike exact, %"] < 50
