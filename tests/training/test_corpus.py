from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.recipe import TEXTS
from tests.support.tone_speech import ToneSpeech, write_tone_shard
from training.corpus import Located, Sources, decode, find_utterances, hours_by_engine, hours_of
from training.errors import RecipeError
from training.speech.shards import Utterance
from training.speech.voices import Voice

MANIFEST = "path\tseconds\ttranscript\tlanguage\tspeaker\tsource\tlicence\n"


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """A compressed shard, a raw one, and a manifest with one recording."""
    write_tone_shard(tmp_path / "shards" / "shard-00000", TEXTS, "flac")
    write_tone_shard(tmp_path / "shards" / "shard-00001", TEXTS[:2], "s16")
    write_tone_shard(tmp_path / "people", TEXTS[:1], "flac")
    row = "people.flac\t2.0\tHELLO THERE\ten\tann\thome\tCC0\n"
    (tmp_path / "manifest.tsv").write_text(MANIFEST + row)
    return Sources(tmp_path / "shards", ((tmp_path / "manifest.tsv", 7),), tmp_path / "decoded")


def test_what_is_compressed_is_heard_once_it_is_decoded(sources: Sources) -> None:
    synthetic, human = find_utterances(sources)
    assert len(synthetic) == 2
    assert human == []
    (manifest,) = decode(sources, processes=0)
    synthetic, human = find_utterances(sources)
    assert [located.utterance.text for located in synthetic] == [*TEXTS, *TEXTS[:2]]
    assert [(h.utterance.text, h.utterance.certain) for h in human] == [("hello there", False)]
    assert manifest.num_left_out == 0
    assert 0.002 < hours_of(synthetic) < 0.02


def test_decoded_audio_is_what_was_spoken(sources: Sources) -> None:
    decode(sources, processes=0)
    located = find_utterances(sources)[0][3]
    spoken = ToneSpeech().speak(TEXTS[3], Voice("tones", "plain")).samples
    assert np.array_equal(located.samples(0, len(spoken)), spoken)
    assert np.array_equal(located.samples(100, 50), spoken[100:150])


def test_nothing_is_decoded_twice(sources: Sources) -> None:
    decode(sources, processes=0)
    before = {path: path.stat().st_mtime_ns for path in sources.decoded.rglob("*.s16")}
    assert len(before) == 2
    decode(sources, processes=0)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_audio_that_is_shorter_than_its_lines_is_refused(sources: Sources) -> None:
    other = sources.decoded / "other"
    write_tone_shard(other, TEXTS[:1], "flac")
    other.with_suffix(".flac").replace(sources.shards / "shard-00000.flac")
    with pytest.raises(RecipeError, match="samples beside it"):
        decode(sources, processes=0)


def test_hours_are_counted_by_synthesiser() -> None:
    voices = ("flite:slt", "espeak:en-us+f3", "neural-anna:1", "flite:rms")
    spoken = [
        Located(Path("a.s16"), Utterance("Hello.", 0, 16_000 * 3600, None, voice))
        for voice in voices
    ]
    assert hours_by_engine(spoken) == {"flite": 2.0, "espeak": 1.0, "neural": 1.0}


def test_what_is_known_is_not_read_again_and_every_manifest_has_its_weight(
    sources: Sources,
) -> None:
    decode(sources, processes=0)
    synthetic, human = find_utterances(sources)
    assert {located.weight for located in synthetic} == {1}
    assert {located.weight for located in human} == {7}
    known = {located.audio for located in [*synthetic[:1], *human]}
    later, nobody = find_utterances(sources, known)
    assert nobody == []
    assert {located.audio for located in later} == {s.audio for s in synthetic} - known


def test_what_is_heard_is_what_the_manifests_say_now(sources: Sources) -> None:
    decode(sources, processes=0)
    assert find_utterances(replace(sources, people=()))[1] == []
    ((manifest, _),) = sources.people
    manifest.write_text(manifest.read_text().replace("HELLO THERE", "GOOD MORNING"))
    assert find_utterances(sources)[1] == []
    decode(sources, processes=0)
    assert [h.utterance.text for h in find_utterances(sources)[1]] == ["good morning"]
