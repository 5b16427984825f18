"""Engines on a device, what they are asked, and what is the answer."""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from engine.assembly import Engine, assemble
from engine.audio.units import MAX_WINDOW_SAMPLES, SAMPLE_RATE
from engine.config import EngineConfig
from engine.events import Task, UtteranceOptions
from engine.model.checkpoint import load_checkpoint
from engine.runtime.device_runner import DeviceRunner
from tests.support.checkpoints import SHAPES, Reference, make_checkpoint, reference_decode
from tests.support.engines import GREEDY, babble

Audio = NDArray[np.float32]

EMBEDDED: Final = Path(__file__).parents[2] / "engine" / "embedded"
PROMPT: Final = "What did you say?"
SECONDS: Final = (2.0, 9.0, 27.0)
# Graphs for steps of two rows: some seventy, a second or two.
ON_GPU: Final = replace(GREEDY, device="cuda", max_batch=2)
EAGER: Final = replace(ON_GPU, cuda_graphs="off")
# What a stream decodes: partials trimmed and finals trimmed, whatever the checkpoint.
TRIMMED: Final = UtteranceOptions(
    language="en",
    context="trimmed",
    interim_results=False,
    append_only=False,
    max_segment=MAX_WINDOW_SAMPLES,
)


@dataclass(frozen=True)
class Question:
    """One way to ask for a decode, in both vocabularies."""

    language: str = "en"
    task: Task = "transcribe"
    timestamps: bool = False
    prompt: str = ""

    def options(self) -> UtteranceOptions:
        return replace(
            TRIMMED,
            language=self.language,
            task=self.task,
            timestamps=self.timestamps,
            prompt=self.prompt,
            context="full",
        )


PLAIN: Final = Question()


def everything(shape: str) -> Question:
    """Prompt, timestamps and, where the model has other languages, a translation."""
    if SHAPES[shape].is_multilingual:
        return Question("de", "translate", timestamps=True, prompt=PROMPT)
    return Question(timestamps=True, prompt=PROMPT)


def engine_on(
    device: torch.device,
    directory: Path,
    config: EngineConfig = ON_GPU,
    dtype: torch.dtype = torch.float32,
) -> Engine:
    """The service's own engine, graphs and all."""
    return assemble(load_checkpoint(directory), config, device=device, dtype=dtype)


def runner_of(engine: Engine) -> DeviceRunner:
    """Its runner, which is a device's."""
    assert isinstance(engine.runner, DeviceRunner)
    return engine.runner


def checkpoint(root: Path, shape: str, *, head_dim: int | None = None) -> Path:
    """A checkpoint of a published shape, made once."""
    directory = root / f"{shape} {head_dim or ''}".rstrip()
    if directory.exists():
        return directory
    return make_checkpoint(directory, shape, head_dim=head_dim)


@lru_cache
def audios() -> tuple[Audio, ...]:
    """Windows of SECONDS."""
    return tuple(babble(seconds, seed=seed) for seed, seconds in enumerate(SECONDS))


@lru_cache
def reference(directory: Path, question: Question, *, multilingual: bool) -> list[Reference]:
    """What `transformers` decodes on the processor from each of `audios`."""
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(directory)
    features = extractor(list(audios()), sampling_rate=SAMPLE_RATE, return_tensors="pt")
    tokenizer = transformers.WhisperTokenizer.from_pretrained(directory)
    prompt = tokenizer.get_prompt_ids(question.prompt).tolist() if question.prompt else None
    return reference_decode(
        directory,
        features.input_features,
        language=question.language if multilingual else None,
        task=question.task if multilingual else None,
        timestamps=question.timestamps,
        prompt_ids=prompt,
        max_new_tokens=GREEDY.max_new_tokens,
    )


def agreement(said: Sequence[Hashable], known: Sequence[Hashable]) -> float:
    """Share of tokens or words that both have in the same order, 0 to 1."""
    if not said and not known:
        return 1.0
    blocks = SequenceMatcher(a=said, b=known, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / max(len(said), len(known))


def words_of(text: str) -> list[str]:
    """Its words, whatever their case and punctuation."""
    return [word.strip(".,?!").lower() for word in text.split()]


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Whatever waits for the device raises RuntimeError."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
