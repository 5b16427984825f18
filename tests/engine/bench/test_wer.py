import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.audio.units import SAMPLE_RATE, Samples, samples_from_ms
from engine.bench.wer import Found, invented, measure
from engine.bench.wer_hearing import FINALS, PARTIALS, SPEECH, WHOLE, Hearing
from engine.bench.wer_sets import Audio, Recording, copies
from engine.bench.wer_text import Errors
from engine.config import PartialContext
from engine.errors import AudioError, StepError
from engine.offline import Region
from engine.traits import CheckpointTraits
from tests.support.clips import REPOSITORY, TWO_SENTENCES
from tests.support.engines import load_engine
from tests.support.fake_engine import engine_of
from tests.support.fake_runner import WORDS, Rig, say, silence
from tests.support.sounds import s16le
from tests.support.workers import EMBEDDED_CONFIG

AS_RECORDED = copies(None, telephone=False)


def written(
    directory: Path, samples: Audio, transcript: str, language: str = "en", source: str = "here"
) -> Recording:
    path = directory / f"{len(list(directory.iterdir()))}.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(s16le(samples * np.float32(32768 / 32767)))
    return Recording(path, len(samples) / SAMPLE_RATE, transcript, language, "anna", source)


def words_of(found: Found, way: str) -> Errors:
    (errors,) = [it.errors.words for it in found.comparisons if it.way == way]
    return errors


def row_of(rows: Sequence[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    return row


def test_a_recording_is_heard_offline_and_as_it_grows(tmp_path: Path) -> None:
    # 1.05 s: one partial, of 0.8 s, in which the third word is cut off.
    recording = written(tmp_path, say("red", "green", "blue"), "RED GREEN BLUE")
    found = measure(engine_of(Rig()), [recording], Hearing(), AS_RECORDED)
    heard = {it.way: it.heard for it in found.comparisons}
    assert heard == {
        WHOLE: "red green blue.",
        FINALS: "red green blue.",
        PARTIALS: "red green uh.",
    }
    assert words_of(found, WHOLE) == words_of(found, FINALS) == Errors(3)
    assert words_of(found, PARTIALS) == Errors(3, deletions=1)  # hesitations are not words
    row = row_of(found.rows(), way=FINALS)
    assert row["flicker %"] == pytest.approx(100 / 3)
    assert row["minutes"] == pytest.approx(3 * 5600 / SAMPLE_RATE / 60)
    assert row["RTFx"] > 0


def test_the_speech_that_is_found_is_heard_alone_and_live(tmp_path: Path) -> None:
    samples = np.concatenate([say("red"), silence(16_000), say("green", "blue", "north")])
    regions: list[Region] = [
        (Samples(0), Samples(5600)),
        (Samples(21_600), Samples(len(samples))),
    ]
    recording = written(tmp_path, samples, "red green blue north")
    rig = Rig()
    hearing = Hearing(find_speech=lambda _: regions)
    found = measure(engine_of(rig), [recording], hearing, AS_RECORDED)
    heard = {it.way: it.heard for it in found.comparisons}
    assert heard[WHOLE] == "red green blue north."
    assert heard[SPEECH] == heard[FINALS] == "red. green blue north."
    assert heard[PARTIALS] == "green blue uh."  # the first is too short for a partial
    alone = Hearing(find_speech=lambda _: regions, whole=False, live=False)
    found = measure(engine_of(Rig()), [recording], alone, AS_RECORDED)
    assert [it.way for it in found.comparisons] == [SPEECH]


def test_a_recording_without_speech_is_heard_as_nothing(tmp_path: Path) -> None:
    recording = written(tmp_path, silence(16_000), "red")
    found = measure(engine_of(Rig()), [recording], Hearing(find_speech=lambda _: []), AS_RECORDED)
    assert words_of(found, SPEECH) == words_of(found, FINALS) == Errors(1, deletions=1)


def test_what_is_shown_before_the_last_final_follows_the_finals_before_it(tmp_path: Path) -> None:
    words = np.random.default_rng(3).choice(WORDS[11:], 40).tolist()  # 14 s: cut once
    recording = written(tmp_path, say(*words), " ".join(words))
    rig = Rig(traits=CheckpointTraits(trimmed_context=True, max_window=samples_from_ms(10_000)))
    found = measure(engine_of(rig), [recording], Hearing(), AS_RECORDED)
    assert rig.metrics.finals == 4  # two segments, offline and live
    assert words_of(found, FINALS) == Errors(40)
    shown = words_of(found, PARTIALS)
    assert shown.insertions == shown.substitutions == 0
    assert shown.deletions <= 2  # of the last 400 ms


def test_how_recordings_are_batched_does_not_matter(tmp_path: Path) -> None:
    texts = [("red", "green"), ("blue",), ("north", "south", "east", "west")] * 12
    recordings = [written(tmp_path, say(*words), " ".join(words)) for words in texts]
    together, apart = Rig(), Rig()
    together.metrics.slots = 4
    found = [
        measure(engine_of(rig), recordings, Hearing(), AS_RECORDED) for rig in (together, apart)
    ]
    assert found[0].comparisons == found[1].comparisons
    assert {it.heard for it in found[0].comparisons if it.way == FINALS} == {
        "red green.",
        "blue.",
        "north south east west.",
    }


def test_groups_and_copies_have_their_own_figures_and_common_ones(tmp_path: Path) -> None:
    recordings = [
        written(tmp_path, say("red", "green"), "red green", source="right"),
        written(tmp_path, say("red", "green"), "red blue", source="wrong"),
        written(tmp_path, say("red"), "red", source="wrong"),
    ]
    degraded = AS_RECORDED | {"muted": lambda samples, _: samples * 0}
    hearing = Hearing(live=False)
    advanced: list[float] = []
    found = measure(engine_of(Rig()), recordings, hearing, degraded, advance=advanced.append)
    rows = found.rows()
    assert [(row["audio"], row["group"]) for row in rows] == [
        (audio, group) for audio in degraded for group in ("right", "wrong", "all")
    ]
    rate = {(row["audio"], row["group"]): row["WER %"] for row in rows}
    assert rate["as recorded", "right"] == 0
    assert rate["as recorded", "wrong"] == pytest.approx(100 / 3)
    assert rate["as recorded", "all"] == pytest.approx(100 / 5)
    assert rate["muted", "all"] == 100
    assert row_of(rows, audio="muted", group="all")["del %"] == 100
    assert [row["WER %"] for row in found.totals()] == [
        rate["as recorded", "all"],
        rate["muted", "all"],
    ]
    assert sum(advanced) == pytest.approx(2 * sum(it.seconds for it in recordings))


def test_the_worst_recordings_come_first_and_right_ones_never(tmp_path: Path) -> None:
    recordings = [
        written(tmp_path, say("red", "green"), "red green"),
        written(tmp_path, say("red", "green"), "red blue"),
        written(tmp_path, say("red"), "blue"),
        written(tmp_path, say("red", "green"), "blue north"),
    ]
    found = measure(engine_of(Rig()), recordings, Hearing(), AS_RECORDED)
    worst = found.worst(9)
    assert [(it.percent, it.said) for it in worst] == [
        (100, "blue north"),
        (100, "blue"),
        (50, "red blue"),
    ]
    assert {it.way for it in worst} == {FINALS}
    assert found.worst(1) == worst[:1]
    offline = measure(engine_of(Rig()), recordings, Hearing(live=False), AS_RECORDED)
    assert {it.way for it in offline.worst(9)} == {WHOLE}


def test_languages_that_the_model_does_not_have_are_left_out_and_counted(tmp_path: Path) -> None:
    recordings = [
        written(tmp_path, say("red"), "red"),
        written(tmp_path, say("red"), "rot", language="de"),
    ]
    found = measure(engine_of(Rig()), recordings, Hearing(live=False), AS_RECORDED)
    assert len(found.comparisons) == 1
    assert found.left_out == {"de": 1}


def test_a_failure_of_the_engine_is_no_word_error(tmp_path: Path) -> None:
    recording = written(tmp_path, say("red"), "red")
    rig = Rig()
    rig.runner.fail_next = True
    with pytest.raises(StepError, match=f"{recording.path}: RuntimeError: told to fail"):
        measure(engine_of(rig), [recording], Hearing(), AS_RECORDED)


def test_a_recording_that_is_not_there_is_an_error() -> None:
    missing = Recording(Path("/no/such.wav"), 1.0, "red", "en", "anna", "here")
    with pytest.raises(AudioError, match=r"/no/such\.wav"):
        measure(engine_of(Rig()), [missing], Hearing(), AS_RECORDED)


def test_words_in_what_nobody_says_are_counted() -> None:
    spoken = say("red", "green", "blue", "north")
    sounds = {
        "words": lambda seconds, _: np.resize(spoken, round(seconds * SAMPLE_RATE)),
        "silence": lambda seconds, _: silence(round(seconds * SAMPLE_RATE)),
    }
    regions: list[Region] = [(Samples(0), Samples(5600))]
    hearing = Hearing(find_speech=lambda samples: regions if samples.any() else [])
    advanced: list[float] = []
    rows = invented(engine_of(Rig()), 0.05, hearing, sounds=sounds, advance=advanced.append)
    figures = {(row["sound"], row["way"]): (row["words"], row["speech s"]) for row in rows}
    assert figures == {
        ("words", WHOLE): (9, None),  # 3 s; the end cuts off the ninth
        ("words", SPEECH): (1, pytest.approx(0.35)),
        ("silence", WHOLE): (0, None),
        ("silence", SPEECH): (0, 0),
    }
    assert row_of(rows, sound="words", way=SPEECH)["heard"] == "red."
    assert row_of(rows, sound="words", way=WHOLE)["words / min"] == pytest.approx(180)
    assert advanced == [3, 3]


@pytest.mark.parametrize("partial_context", ["trimmed", "incremental"])
def test_a_real_model_understands_its_own_clip_in_every_way(
    partial_context: PartialContext,
) -> None:
    said = TWO_SENTENCES.with_suffix(".txt").read_text()
    recording = Recording(TWO_SENTENCES, 5.0, said, "en", "flite", "fixtures")
    config = replace(EMBEDDED_CONFIG, partial_context=partial_context)
    engine = load_engine(REPOSITORY / "engine" / "embedded", config)
    found = measure(engine, [recording], Hearing(), AS_RECORDED)
    rate = {it.way: it.percent for it in found.comparisons}
    assert rate[WHOLE] <= 10
    assert rate[FINALS] <= 20
    assert rate[PARTIALS] <= 40
    assert ("ExtendStep" in engine.metrics.steps) == (partial_context == "incremental")
