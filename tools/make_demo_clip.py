"""Make the spoken clips of the repository: `python -m tools.make_demo_clip [FOLDER]`.

Needs the package `kokoro` (`pip install kokoro`; Kokoro-82M and its voices, Apache-2.0, fetched
once); the clips are committed, so only changing them needs it. Each sentence is spoken by itself,
trimmed of its silence, joined with the next at an exact pause, scaled to one peak and written as
16 kHz mono FLAC beside its transcript. The committed clips were made with the model's weights in
8 bits; in full precision it speaks the same with other samples.

The sentences are ones that the embedded model, which was trained on these voices, gets right.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from training.speech.kokoro import Kokoro
from training.speech.voices import Voice

SAMPLE_RATE: Final = 16_000
PEAK: Final = 0.6
BITS: Final = 12  # 60 dB of range is plenty for a synthesised voice, and halves the files
SILENCE: Final = 0.012  # of the loudest 10 ms: below the voices' quietest consonants
MARGIN_MS: Final = 40  # of near-silence kept around a sentence, so that no consonant is clipped


@dataclass(frozen=True, slots=True)
class Clip:
    """What is said, by which voice, and the silence around it."""

    path: str
    voice: str
    pause_ms: int  # between the end of a sentence's speech and the next one's beginning
    around_ms: int  # before the first sentence and after the last
    sentences: tuple[str, ...]


DEMO = Clip(
    "clients/demo/demo.flac",
    voice="af_heart",
    pause_ms=700,
    around_ms=600,
    sentences=(
        "Hello and welcome.",
        "My name is Starling, and I can hear you.",
        "Please speak into the microphone.",
        "Many people can speak at the same time.",
        "When you stop, your sentence is complete.",
        "It works on a small computer and on a big one.",
        "Your voice stays on your own computer.",
        "Now try it with your own voice.",
        "Thank you very much for listening, and have a nice day.",
    ),
)
TWO_SENTENCES = Clip(
    "tests/fixtures/audio/two_sentences.flac",
    voice="bf_emma",
    pause_ms=800,
    around_ms=400,
    sentences=("It's a beautiful day for a long walk.", "The next train leaves in ten minutes."),
)
MONOLOGUE = Clip(
    "tests/fixtures/audio/monologue.flac",
    voice="am_michael",
    pause_ms=2 * MARGIN_MS,
    around_ms=400,
    sentences=(
        "Let me tell you a short story.",
        "My brother is going to buy a new car next week.",
        "He always has a cup of tea after lunch.",
        "The meeting starts at nine o'clock in the morning.",
        "The weather is very nice today.",
        "You can speak into the microphone now.",
        "The doctor said that I should drink more water.",
        "Could you please bring me a glass of cold water.",
        "This is a small bird with a big voice.",
        "He opened the door and looked into the dark room.",
        "They have lived in this town for twenty years.",
        "The train to London leaves at half past seven.",
        "The next train leaves in ten minutes.",
        "The water in the lake is cold but very clear.",
        "The first bus leaves the station at six in the morning.",
        "My sister works in a hospital in the city.",
        "You can leave your coat in the other room.",
        "My mother makes the best bread in the village.",
        "Your voice stays on your own computer.",
        "There is a letter for you on the kitchen table.",
        "Nobody knows what will happen in the next few months.",
        "I think that this is a very good idea.",
        "The children are playing in the garden behind the house.",
        "Do you want to come with us to the market tomorrow.",
        "It works on a small computer and on a big one.",
        "Many people can speak at the same time.",
        "It's a beautiful day for a long walk.",
        "Please call me back when you have the time.",
        "My name is Starling and I can hear you.",
        "I'm on my way home and I'll be there soon.",
        "This is a computer that can hear you.",
        "Now try it with your own voice.",
        "Thank you for your time and have a good day.",
    ),
)


def speak(kokoro: Kokoro, sentence: str, voice: str) -> NDArray[np.float32]:
    """One sentence, cut to its speech and a margin on both sides."""
    spoken = kokoro.speak(sentence, Voice("kokoro", voice)).samples
    samples = spoken.astype(np.float32) / np.float32(2**15)
    block, margin = SAMPLE_RATE // 100, MARGIN_MS * SAMPLE_RATE // 1000
    blocks = samples[: len(samples) // block * block].reshape(-1, block)
    loudness = np.sqrt(np.square(blocks).mean(axis=1))
    loud = np.flatnonzero(loudness > SILENCE * loudness.max())
    return samples[max(0, loud[0] * block - margin) : (loud[-1] + 1) * block + margin]


def render(kokoro: Kokoro, clip: Clip) -> NDArray[np.int16]:
    """All sentences of a clip with their pauses, 16-bit."""
    around = np.zeros(clip.around_ms * SAMPLE_RATE // 1000, np.float32)
    pause = np.zeros((clip.pause_ms - 2 * MARGIN_MS) * SAMPLE_RATE // 1000, np.float32)
    parts = [around]
    for sentence in clip.sentences:
        parts += [speak(kokoro, sentence, clip.voice), pause]
    samples = np.concatenate([*parts[:-1], around])
    scale = PEAK / np.abs(samples).max() * (2 ** (BITS - 1) - 1)
    pcm: NDArray[np.int16] = (np.round(samples * scale) * 2 ** (16 - BITS)).astype(np.int16)
    return pcm


def write_flac(path: Path, samples: NDArray[np.int16]) -> None:
    """Write 16 kHz mono FLAC."""
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])


def main() -> None:
    """Write every clip below the folder given, or the current one."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    kokoro = Kokoro()
    for clip in (DEMO, TWO_SENTENCES, MONOLOGUE):
        path = folder / clip.path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_flac(path, render(kokoro, clip))
        path.with_suffix(".txt").write_text("\n".join(clip.sentences) + "\n")


if __name__ == "__main__":
    main()
