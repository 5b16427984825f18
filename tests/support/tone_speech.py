"""A synthesiser for tests: every letter is a tone of its own, every word a run of them."""

from pathlib import Path

import numpy as np

from engine.audio.units import SAMPLE_RATE, samples_from_ms
from training.speech.clip import Clip
from training.speech.shards import write_shard
from training.speech.voices import Voice

LETTER = samples_from_ms(60)
PAUSE = samples_from_ms(40)


class ToneSpeech:
    """Says text as tones. Its word ends are exact."""

    def speak(self, text: str, voice: Voice) -> Clip:
        parts = []
        ends = []
        for word in text.split():
            letters = [letter for letter in word.lower() if letter.isalpha()]
            parts += [_tone(ord(letter) - ord("a"), voice) for letter in letters]
            ends.append(sum(map(len, parts)))
            parts.append(np.zeros(PAUSE, np.int16))
        return Clip(np.concatenate(parts), tuple(ends))


def _tone(letter: int, voice: Voice) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    time = np.arange(round(LETTER / voice.rate)) / SAMPLE_RATE
    hertz = 200 * voice.pitch * 2 ** (letter / 6)
    return (9000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def write_tone_shard(stem: Path, texts: list[str], audio_format: str = "s16") -> float:
    """A shard of `texts` as tones; returns its seconds."""
    voice = Voice("tones", "plain")
    spoken = [(text, str(voice), ToneSpeech().speak(text, voice)) for text in texts]
    return write_shard(stem, spoken, audio_format=audio_format, bit_rate=24_000)
