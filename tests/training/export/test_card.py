from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.model.test_state import STATE
from training.errors import RecipeError
from training.export.card import CardFacts, model_card

FACTS = CardFacts(
    name="starling-en-test",
    num_sentences=240_000,
    synthetic_hours={"espeak": 50.0, "flite": 100.25},
)


def test_the_card_names_sources_licences_time_and_purpose() -> None:
    card = model_card(FACTS, STATE, 9_400_000, {})
    assert card.startswith("# starling-en-test\n")
    for fact in (
        "9.4 million",
        "demonstration model",
        "LibriSpeech (5.4 h, CC BY 4.0, 5-fold)",
        "VCTK (0.3 h, ODC-By 1.0, 2-fold)",
        "150.2 h of 240,000 sentences: flite 100.2 h, espeak 50.0 h",
        "12 steps",
        "one H200",
        "Nothing has been measured",
    ):
        assert fact in card


def test_without_human_speech_it_says_none() -> None:
    card = model_card(FACTS, replace(STATE, people={}), 1_000, {})
    assert "| human speech | none |" in card


def test_what_the_bench_wrote_becomes_tables() -> None:
    row = {"way": "offline, whole", "audio": "as is", "group": "seen voices", "number": 300}
    silence = {"way": "offline, speech", "sound": "silence", "minutes": 10.0, "words": 0}
    figures = {"words": 1502, "WER %": 13.84, "CER %": 5.0, "flicker %": None}
    measured = {"benchmark": "bench wer", "rows": [row | figures], "invented": [silence]}
    card = model_card(FACTS, STATE, 1_000, measured)
    assert "| offline, whole | as is | seen voices | 300 | 1,502 | 13.8 | 5.0 |  |" in card
    assert "| offline, speech | silence | 10.0 | 0 |" in card
    assert model_card(FACTS, STATE, 1_000, {"rows": [silence]}).count("silence") == 1


def test_a_run_that_began_from_a_checkpoint_adds_to_its_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(model_card(FACTS, STATE, 1_000, {}))
    further = replace(STATE, base=str(tmp_path), people={}, device="a CPU")
    card = model_card(FACTS, further, 1_000, {})
    assert "| human speech | first: LibriSpeech (5.4 h, CC BY 4.0, 5-fold); VCTK" in card
    assert "; then: none |" in card
    assert "12 steps in 0 minutes on one H200" in card
    assert "then: 12 steps in 0 minutes on a CPU" in card
    assert card.count("| language |") == 1


def test_a_base_whose_card_says_nothing_of_its_training_is_refused(tmp_path: Path) -> None:
    further = replace(STATE, base=str(tmp_path))
    with pytest.raises(RecipeError, match="expected the card"):
        model_card(FACTS, further, 1_000, {})
    (tmp_path / "README.md").write_text("| trained | long |\n")
    with pytest.raises(RecipeError, match="expected rows human speech, synthetic speech"):
        model_card(FACTS, further, 1_000, {})
