"""What the recipe makes, in miniature: sentences, a tokenizer, shards of tones, batches."""

from pathlib import Path
from random import Random

from engine.audio.units import samples_from_seconds
from engine.model.dims import ModelDims
from tests.support.tone_speech import write_tone_shard
from training.corpus import Sources, find_utterances
from training.data.batches import Batch, make_batch
from training.data.samples import SampleMaker
from training.data.targets import TargetMaker
from training.vocabulary import load_tokens, train_tokenizer

TEXTS = [
    "Hello there, how are you?",
    "The old man opened the window at noon.",
    "Set a timer for ten minutes.",
    "My name is Alice Brown.",
    "The train to London leaves at five.",
    "Nobody knew why the boy sold his boat.",
    "It costs twenty two dollars.",
    "Call me on Monday.",
]
NUM_TEXT_TOKENS = 280


def make_tokenizer(directory: Path) -> Path:
    """A small tokenizer of `TEXTS`; returns its directory."""
    train_tokenizer(TEXTS * 3, directory, NUM_TEXT_TOKENS)
    return directory


def tone_sources(directory: Path) -> Sources:
    """A corpus of one raw shard."""
    write_tone_shard(directory / "shards" / "shard-00000", TEXTS)
    return Sources(directory / "shards", (), directory / "decoded")


def tiny_dims(n_vocab: int) -> ModelDims:
    return ModelDims(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=32,
        n_audio_head=2,
        n_audio_layer=1,
        n_audio_mlp=64,
        n_vocab=n_vocab,
        n_text_ctx=448,
        n_text_state=32,
        n_text_head=2,
        n_text_layer=2,
        n_text_mlp=64,
    )


def tone_batch(directory: Path, rows: int = 4, seed: int = 0) -> Batch:
    """One batch of 6 s contexts or longer, of whatever `seed` draws."""
    rng = Random(seed)
    tokens = load_tokens(make_tokenizer(directory / "tokenizer"))
    maker, targets = SampleMaker(rng), TargetMaker(tokens, rng)
    maker.know(*find_utterances(tone_sources(directory)))
    samples = [maker.draw() for _ in range(rows)]
    context = samples_from_seconds(30)
    rows_of = [(sample, targets.target(sample, TEXTS[0])) for sample in samples]
    return make_batch(context, rows_of, tokens.eot)
