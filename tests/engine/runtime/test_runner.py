"""The engine's tokens are those of `transformers`' greedy generation, whatever the batch."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import transformers

from engine.events import Task, UtteranceOptions
from tests.support.checkpoints import SHAPES, Reference, make_checkpoint, reference_decode
from tests.support.engines import GREEDY, Audio, babble, decode_together, load_engine, tokens_of

SECONDS = (2.0, 7.5, 30.0, 1.3, 12.0, 4.4, 9.1, 3.0)
PROMPT = "What did you say?"


@dataclass(frozen=True)
class Request:
    """One way to ask for a decode, in both vocabularies."""

    language: str | None = "en"
    task: Task = "transcribe"
    timestamps: bool = False
    prompt: str = ""

    def options(self) -> UtteranceOptions:
        return UtteranceOptions(
            language=self.language,
            task=self.task,
            timestamps=self.timestamps,
            prompt=self.prompt,
            context="full",
            max_segment=UtteranceOptions().max_segment + 2 * 16_000,
            interim_results=False,
        )


PLAIN = Request()
REQUESTS = {
    "plain": PLAIN,
    "timestamps": Request(timestamps=True),
    "prompt": Request(prompt=PROMPT),
    "translate": Request(language="de", task="translate"),
    "prompt and timestamps": Request(prompt=PROMPT, timestamps=True),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def checkpoint(root: Path, shape: str) -> Path:
    directory = root / shape
    return directory if directory.exists() else make_checkpoint(directory, shape)


@lru_cache
def audios(number: int) -> tuple[Audio, ...]:
    return tuple(babble(seconds, seed=seed) for seed, seconds in enumerate(SECONDS[:number]))


def reference(directory: Path, request: Request, number: int) -> list[Reference]:
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(directory)
    features = extractor(list(audios(number)), sampling_rate=16_000, return_tensors="pt")
    engine = load_engine(directory)
    multilingual = "translate" in engine.info.tasks
    tokenizer = transformers.WhisperTokenizerFast.from_pretrained(directory)
    return reference_decode(
        directory,
        features.input_features,
        language=request.language if multilingual else None,
        task=request.task if multilingual else None,
        timestamps=request.timestamps,
        prompt_ids=tokenizer.get_prompt_ids(request.prompt).tolist() if request.prompt else None,
        max_new_tokens=GREEDY.max_new_tokens,
    )


@pytest.mark.timeout(240)
@pytest.mark.parametrize("shape", list(SHAPES))
def test_tokens_equal_those_of_transformers_at_every_shape(checkpoints: Path, shape: str) -> None:
    directory = checkpoint(checkpoints, shape)
    engine = load_engine(directory)
    names = ["plain", "prompt and timestamps"]
    if "translate" in engine.info.tasks:
        names.append("translate")
    for name in names:
        expected = reference(directory, REQUESTS[name], 3)
        finals = decode_together(engine, audios(3), REQUESTS[name].options())
        for row, (final, known) in enumerate(zip(finals, expected, strict=True)):
            assert tokens_of(final) == known.tokens, f"{name}, row {row}"
