"""What "auto" comes to on this machine, and an engine put together and warmed up."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.assembly import assemble, build_engine, resolve_device, resolve_dtype, warm_up
from engine.audio.units import Positions, Samples
from engine.config import Dtype, EngineConfig
from engine.errors import CheckpointError, ConfigError
from engine.events import AppendAudio, FinishUtterance, OpenUtterance, UtteranceId, UtteranceOptions
from engine.model.checkpoint import load_checkpoint
from engine.scheduling.steps import EncodeStep
from tests.support.checkpoints import LANGUAGES, make_checkpoint
from tests.support.engines import GREEDY, babble, decode_together, load_engine, tokens_of

CPU = torch.device("cpu")
OPTIONS = UtteranceOptions(language="en", interim_results=False, context="trimmed")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("assembly") / "starling-base", "base")


def test_a_gpu_is_used_where_there_is_one_and_missed_where_it_was_asked_for() -> None:
    assert resolve_device("cpu") == CPU
    if torch.cuda.is_available():
        assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    else:
        assert resolve_device("auto") == CPU
        with pytest.raises(ConfigError, match="device: got 'cuda', but torch finds no CUDA device"):
            resolve_device("cuda")


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_number_format_asked_for_is_taken(name: Dtype, device: str) -> None:
    assert resolve_dtype(name, torch.device(device)) is getattr(torch, name)


def test_half_precision_is_chosen_only_where_it_is_fast() -> None:
    assert resolve_dtype("auto", torch.device("cuda")) is torch.float16
    assert resolve_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    assert resolve_dtype("float16", torch.device("cuda")) is torch.float16
    with pytest.raises(ConfigError, match="'float16', accepted on a CPU are float32, bfloat16"):
        resolve_dtype("float16", CPU)


@pytest.mark.parametrize(
    ("shape", "languages", "tasks"),
    [
        ("base", LANGUAGES, ("transcribe", "translate")),
        ("tiny.en", ("en",), ("transcribe",)),
    ],
)
def test_an_engine_says_what_its_checkpoint_can_do(
    tmp_path: Path, shape: str, languages: tuple[str, ...], tasks: tuple[str, ...]
) -> None:
    info = load_engine(make_checkpoint(tmp_path / shape, shape)).info
    assert (info.name, info.languages, info.tasks) == (shape, languages, tasks)


@pytest.mark.parametrize("num_slots", [1, 3])
def test_as_many_utterances_are_at_work_as_there_are_slots(directory: Path, num_slots: int) -> None:
    engine = load_engine(
        directory, replace(GREEDY, num_slots=num_slots, encode_slice=Positions(6000))
    )
    for number in range(4):
        utterance_id = UtteranceId(number)
        for command in (
            OpenUtterance(utterance_id, Samples(0), OPTIONS),
            AppendAudio(utterance_id, babble(1.0, seed=number)),
            FinishUtterance(utterance_id),
        ):
            engine.scheduler.handle(command, 0.0)
    step = engine.scheduler.next_step(0.0)
    assert isinstance(step, EncodeStep)
    assert len(step.rows) == num_slots


def test_an_engine_that_is_warm_decodes_like_one_that_is_cold(directory: Path) -> None:
    audios = [babble(2.0, seed=1), babble(3.0, seed=2)]
    checkpoint = load_checkpoint(directory)
    cold = load_engine(directory)
    warm = assemble(checkpoint, GREEDY, device=CPU, dtype=torch.float32)
    warm_up(warm.runner, checkpoint)
    said = [
        [tokens_of(final) for final in decode_together(engine, audios, OPTIONS)]
        for engine in (cold, warm)
    ]
    assert said[0] == said[1]
    assert all(said[0])


def test_the_embedded_model_is_built_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    engine = build_engine(
        EngineConfig(model="embedded", device="cpu", dtype="float32", num_slots=4, threads=1)
    )
    assert engine.info.name == "embedded"
    assert engine.metrics.steps == {}, "warming up is no work"
    assert "model embedded on cpu in float32, loaded and warm in" in caplog.text


def test_a_checkpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(CheckpointError, match="/no/such/whisper"):
        build_engine(EngineConfig(model="/no/such/whisper", device="cpu"))
