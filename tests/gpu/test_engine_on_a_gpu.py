"""The engine on a CUDA device: the tokens of `transformers`, whatever runs its steps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.config import Attention, EngineConfig
from engine.errors import ConfigError
from engine.model.backends import load_backend
from tests.gpu.building import (
    EAGER,
    ON_GPU,
    PLAIN,
    TRIMMED,
    Question,
    agreement,
    audios,
    checkpoint,
    engine_on,
    everything,
    reference,
    runner_of,
)
from tests.support.checkpoints import SHAPES, Reference
from tests.support.engines import decode_together, tokens_of

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

HALVES = (torch.float16, torch.bfloat16)


def assert_says(said: list[list[int]], known: list[Reference], question: Question) -> None:
    for row, (tokens, expected) in enumerate(zip(said, known, strict=True)):
        if tokens == expected.tokens:
            continue
        pairs = zip(tokens, expected.tokens, strict=False)
        same = next((at for at, (ours, theirs) in enumerate(pairs) if ours != theirs), len(tokens))
        margin = expected.margins[min(same, len(expected.margins) - 1)]
        raise AssertionError(
            f"{question}, row {row}: after {same} equal tokens {tokens[same : same + 3]} for "
            f"{expected.tokens[same : same + 3]}, which led by {margin:.5f} logits"
        )


def assert_exact(directory: Path, config: EngineConfig, device: torch.device, shape: str) -> None:
    engine = engine_on(device, directory, config)
    multilingual = SHAPES[shape].is_multilingual
    for question in (PLAIN, everything(shape)):
        finals = decode_together(engine, audios(), question.options())
        known = reference(directory, question, multilingual=multilingual)
        assert_says([tokens_of(final) for final in finals], known, question)
    assert engine.metrics.failures == 0


def test_an_engine_in_float32_has_no_shorter_products(device: torch.device, root: Path) -> None:
    """As torch starts, convolutions are made of 10 bits of mantissa: 3 digits, not 7."""
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    engine = engine_on(device, checkpoint(root, "base", head_dim=64), EAGER)
    encoder = runner_of(engine)._model.encoder
    generator = torch.Generator(device).manual_seed(0)
    features = torch.randn(1, 80, 800, device=device, generator=generator)
    matrix = torch.randn(512, 512, device=device, generator=generator)
    exact = (
        torch.nn.functional.conv1d(features.double(), encoder.conv1.weight.double(), padding=1),
        matrix.double() @ matrix.double(),
    )
    found = torch.nn.functional.conv1d(features, encoder.conv1.weight, padding=1), matrix @ matrix
    for ours, known in zip(found, exact, strict=True):
        assert float((ours - known).abs().max() / known.abs().max()) < 1e-5


@pytest.mark.parametrize("shape", list(SHAPES))
def test_float32_says_with_graphs_what_transformers_says(
    device: torch.device, root: Path, shape: str
) -> None:
    config = replace(ON_GPU, attention="triton", cuda_graphs="on")
    assert_exact(checkpoint(root, shape), config, device, shape)


@pytest.mark.parametrize("attention", ["triton", "sdpa", "eager"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_float32_says_without_graphs_what_transformers_says(
    device: torch.device, root: Path, shape: str, attention: Attention
) -> None:
    assert_exact(checkpoint(root, shape), replace(EAGER, attention=attention), device, shape)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_graphs_of_other_back_ends_say_what_transformers_says(
    device: torch.device, root: Path, attention: Attention
) -> None:
    config = replace(ON_GPU, attention=attention, cuda_graphs="on")
    assert_exact(checkpoint(root, "base"), config, device, "base")


def test_heads_of_the_published_size_say_what_transformers_says(
    device: torch.device, root: Path
) -> None:
    """All of base's 512 features: 8 heads of 64."""
    directory = checkpoint(root, "base", head_dim=64)
    assert_exact(directory, replace(EAGER, attention="triton"), device, "base")


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("attention", ["triton", "sdpa", "eager", "flash"])
def test_half_precision_mostly_says_what_float32_says(
    device: torch.device, root: Path, attention: Attention, dtype: torch.dtype
) -> None:
    """Random weights decide by little, and what follows a first other token is other text."""
    try:
        load_backend(attention, dtype, dtype)
    except ConfigError as exc:
        pytest.skip(str(exc))
    directory = checkpoint(root, "base", head_dim=64)
    engine = engine_on(device, directory, replace(EAGER, attention=attention), dtype)
    finals = decode_together(engine, audios(), PLAIN.options())
    shares = [
        agreement(tokens_of(final), known.tokens)
        for final, known in zip(finals, reference(directory, PLAIN, multilingual=True), strict=True)
    ]
    print(f"{attention} in {dtype}: {', '.join(f'{share:.0%}' for share in shares)} of the tokens")
    assert max(shares) > 0.5


def test_what_the_device_chooses_itself_says_what_transformers_says(
    device: torch.device, root: Path
) -> None:
    assert_exact(checkpoint(root, "base"), replace(ON_GPU, attention="auto"), device, "base")


def test_results_read_a_step_late_say_the_same(device: torch.device, root: Path) -> None:
    """With words and an open language, whose passes lie between others."""
    said = []
    for options in (TRIMMED, replace(TRIMMED, language=None, word_timestamps=True)):
        for run_ahead in (0, 1):
            engine = engine_on(device, checkpoint(root, "base"))
            runner = runner_of(engine)
            runner.run_ahead = run_ahead
            finals = decode_together(engine, audios(), options)
            said.append(
                [(final.tokens, final.language, final.words) for (final,) in finals],
            )
    assert said[0] == said[1]
    # Of the scores of words a graph of another number of rows may round the last bits otherwise.
    for late, ahead in zip(said[2], said[3], strict=True):
        assert late[:2] == ahead[:2]
        assert [(it.text, it.start, it.end) for it in late[2]] == [
            (it.text, it.start, it.end) for it in ahead[2]
        ]
    assert any(words for _, _, words in said[3])
