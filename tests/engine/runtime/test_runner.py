"""The engine's tokens are those of `transformers`' greedy generation, whatever the batch."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import transformers

from engine.audio.file import read_audio
from engine.audio.units import MAX_WINDOW_SAMPLES, SAMPLE_RATE, Samples
from engine.config import QualityThresholds
from engine.events import (
    AppendAudio,
    FinishUtterance,
    HypothesisUpdated,
    OpenUtterance,
    Task,
    UtteranceId,
    UtteranceOptions,
)
from engine.model.checkpoint import load_checkpoint
from tests.support.checkpoints import SHAPES, Reference, make_checkpoint, reference_decode
from tests.support.engines import (
    GREEDY,
    Audio,
    Driver,
    babble,
    decode_together,
    load_engine,
    tokens_of,
)

SECONDS = (2.0, 30.0, 7.5, 1.3, 12.0, 4.4, 9.1, 3.0)
PROMPT = "What did you say?"
ROOT = Path(__file__).parents[3]
EMBEDDED = ROOT / "engine" / "embedded"
DEMO = ROOT / "clients" / "demo" / "demo.flac"
TWO_SENTENCES = ROOT / "tests" / "fixtures" / "audio" / "two_sentences.flac"


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
            max_segment=MAX_WINDOW_SAMPLES,
            interim_results=False,
        )


EVERYTHING = Request(language="de", task="translate", timestamps=True, prompt=PROMPT)


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
    features = extractor(list(audios(number)), sampling_rate=SAMPLE_RATE, return_tensors="pt")
    engine = load_engine(directory)
    multilingual = "translate" in engine.info.tasks
    tokenizer = transformers.WhisperTokenizer.from_pretrained(directory)
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
    multilingual = "translate" in engine.info.tasks
    everything = EVERYTHING if multilingual else Request(timestamps=True, prompt=PROMPT)
    for request in (Request(), everything):
        expected = reference(directory, request, 2)
        finals = decode_together(engine, audios(2), request.options())
        for row, (final, known) in enumerate(zip(finals, expected, strict=True)):
            assert tokens_of(final) == known.tokens, f"{request}, row {row}"


@pytest.mark.parametrize("timestamps", [False, True])
def test_the_embedded_checkpoint_hears_what_transformers_hears(*, timestamps: bool) -> None:
    request = Request(timestamps=timestamps)
    clip = read_audio(DEMO)
    spoken = [read_audio(TWO_SENTENCES), clip[: 6 * SAMPLE_RATE], clip[-8 * SAMPLE_RATE :]]
    features = transformers.WhisperFeatureExtractor.from_pretrained(EMBEDDED)(
        spoken, sampling_rate=SAMPLE_RATE, return_tensors="pt"
    )
    known = reference_decode(
        EMBEDDED,
        features.input_features,
        language="en",
        task="transcribe",
        timestamps=timestamps,
        max_new_tokens=80,
    )
    engine = load_engine(EMBEDDED, replace(GREEDY, max_new_tokens=80))
    finals = decode_together(engine, spoken, request.options())
    assert [tokens_of(final) for final in finals] == [row.tokens for row in known]
    assert finals[0][0].text.startswith("It's a beautiful day")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "request_",
    [
        Request(timestamps=True),
        Request(prompt=PROMPT),
        Request(language="es", task="translate"),
    ],
    ids=["timestamps", "prompt", "translate"],
)
def test_tokens_do_not_depend_on_the_batch(checkpoints: Path, request_: Request) -> None:
    directory = checkpoint(checkpoints, "base")
    engine = load_engine(directory)
    known = [row.tokens for row in reference(directory, request_, len(SECONDS))]
    assert len({tuple(tokens) for tokens in known}) > 1, "the audio makes no difference"
    for size in (1, 3, 8):
        batches = [audios(len(SECONDS))[at : at + size] for at in range(0, len(SECONDS), size)]
        finals = [
            tokens_of(final)
            for batch in batches
            for final in decode_together(engine, batch, request_.options())
        ]
        assert finals == known, f"batches of {size}"


def test_a_language_that_is_not_told_is_the_one_that_transformers_detects(
    checkpoints: Path,
) -> None:
    directory = checkpoint(checkpoints, "base")
    finals = decode_together(load_engine(directory), audios(3), Request(language=None).options())
    known = reference(directory, Request(language=None), 3)
    for (final,), row in zip(finals, known, strict=True):
        assert load_checkpoint(directory).tokenizer.languages[final.language] in row.prefix
        assert list(final.tokens) == row.tokens
        assert 0.0 < final.language_probability <= 1.0


def test_a_decode_with_drafts_says_what_one_without_says(checkpoints: Path) -> None:
    directory = checkpoint(checkpoints, "base")
    options = replace(
        Request().options(), interim_results=True, append_only=False, context="trimmed"
    )
    said = []
    for use_drafts in (False, True):
        engine = load_engine(directory, replace(GREEDY, use_drafts=use_drafts))
        driver = Driver(engine)
        driver.send(OpenUtterance(UtteranceId(1), Samples(0), options))
        for audio in np.array_split(audios(5)[4], 12):
            driver.send(AppendAudio(UtteranceId(1), audio))
        driver.send(FinishUtterance(UtteranceId(1)))
        said.append([event for event in driver.events if isinstance(event, HypothesisUpdated)])
        assert driver.closed(1)[0].tokens
    assert len(said[0]) > 5
    assert [event.text for event in said[0]] == [event.text for event in said[1]]
    assert engine.metrics.accepted > 0


def test_a_window_that_grew_is_decoded_like_one_that_came_whole(checkpoints: Path) -> None:
    engine = load_engine(checkpoint(checkpoints, "base"))
    options = replace(
        Request().options(), interim_results=True, append_only=False, context="trimmed"
    )
    whole = tokens_of(decode_together(engine, audios(3)[2:], options)[0])
    driver = Driver(engine)
    driver.send(OpenUtterance(UtteranceId(1), Samples(0), options))
    for audio in np.array_split(audios(3)[2], 30):
        driver.send(AppendAudio(UtteranceId(1), audio))
    driver.send(FinishUtterance(UtteranceId(1)))
    assert tokens_of(driver.closed(1)) == whole


def test_sampling_at_a_temperature_is_repeatable(checkpoints: Path) -> None:
    directory = checkpoint(checkpoints, "base")
    thresholds = QualityThresholds(avg_logprob=10.0, no_speech=2.0)
    config = replace(GREEDY, temperatures=(0.0, 0.8), thresholds=thresholds)
    once, again = (
        decode_together(load_engine(directory, config), audios(2), Request().options())
        for _ in range(2)
    )
    assert [tokens_of(final) for final in once] == [tokens_of(final) for final in again]
