from pathlib import Path

import numpy as np
import pytest

from engine.audio.file import read_audio
from tests.support.recipe import TEXTS
from tests.support.tone_speech import ToneSpeech, write_tone_shard
from training.errors import RecipeError
from training.speech.shards import FORMATS, audio_of, read_utterances
from training.speech.voices import Voice


@pytest.mark.parametrize("audio_format", FORMATS)
def test_every_clip_lies_where_its_line_says(tmp_path: Path, audio_format: str) -> None:
    stem = tmp_path / "shard-00000"
    write_tone_shard(stem, TEXTS, audio_format)
    audio = audio_of(stem.with_suffix(".jsonl"))
    assert audio.suffix == f".{audio_format}"
    heard = np.fromfile(audio, np.int16) if audio_format == "s16" else read_audio(audio)
    utterances = list(read_utterances(stem.with_suffix(".jsonl")))
    assert [utterance.text for utterance in utterances] == TEXTS
    for utterance in utterances:
        clip = ToneSpeech().speak(utterance.text, Voice("tones", "plain"))
        stretch = heard[utterance.start : utterance.start + utterance.length]
        assert utterance.word_ends == clip.word_ends
        assert np.corrcoef(stretch, clip.samples)[0, 1] > 0.95


def test_compressed_shards_are_smaller(tmp_path: Path) -> None:
    sizes = []
    for audio_format in FORMATS:
        write_tone_shard(tmp_path / audio_format, TEXTS, audio_format)
        sizes.append(audio_of(tmp_path / f"{audio_format}.jsonl").stat().st_size)
    opus, flac, raw = sizes
    assert opus < flac < raw
    assert opus < raw / 5


def test_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    lines = tmp_path / "shard-00000.jsonl"
    lines.write_text('{"text": "hello"}\n')
    with pytest.raises(RecipeError, match="line 1"):
        list(read_utterances(lines))
    with pytest.raises(RecipeError, match="expected audio beside it"):
        audio_of(lines)
