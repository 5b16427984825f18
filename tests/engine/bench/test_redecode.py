from engine.audio.units import SAMPLE_RATE
from engine.bench.redecode import measure
from tests.support.clips import TWO_SENTENCES, read_clip
from tests.support.workers import EMBEDDED_CONFIG


def test_drafts_save_passes_and_change_nothing() -> None:
    """`measure` itself raises where the hypotheses with and without drafts differ."""
    clip = read_clip(TWO_SENTENCES)
    without, with_drafts = measure(
        EMBEDDED_CONFIG, [clip[: 2 * SAMPLE_RATE], clip[-3 * SAMPLE_RATE :]], 400
    )
    assert (without["drafts"], with_drafts["drafts"]) == ("off", "on")
    assert without["hypotheses"] == with_drafts["hypotheses"] > 8
    # One pass for each token; the forced prefix and a hypothesis's first token share a pass.
    assert without["passes / token"] == 1.0
    assert with_drafts["passes / token"] < 0.5
    for row in (without, with_drafts):
        assert row["passes"] == row["passes / token"] * row["tokens"]
        assert 0 < row["decoder ms / token"] < row["all ms / token"]
