"""The engine on a CUDA device: the same tokens as `transformers`, and as the CPU."""

from pathlib import Path

import pytest
import torch

from engine.assembly import assemble, resolve_device
from engine.events import UtteranceOptions
from engine.model.checkpoint import load_checkpoint
from tests.support.checkpoints import make_checkpoint
from tests.support.engines import GREEDY, babble, decode_together, load_engine, tokens_of

pytestmark = pytest.mark.gpu

OPTIONS = UtteranceOptions(language="en", context="full", interim_results=False)
AUDIOS = [babble(seconds, seed=number) for number, seconds in enumerate((2.0, 9.0, 27.0))]


@pytest.mark.parametrize("shape", ["base", "large-v3-turbo"])
def test_float32_says_on_the_gpu_what_it_says_on_the_cpu(tmp_path: Path, shape: str) -> None:
    directory = make_checkpoint(tmp_path / shape, shape)
    on_gpu = assemble(
        load_checkpoint(directory), GREEDY, device=resolve_device("cuda"), dtype=torch.float32
    )
    expected = [
        tokens_of(final) for final in decode_together(load_engine(directory), AUDIOS, OPTIONS)
    ]
    assert [tokens_of(final) for final in decode_together(on_gpu, AUDIOS, OPTIONS)] == expected
