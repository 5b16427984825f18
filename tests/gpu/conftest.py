"""What the tests of a device share: the device, exact products, memory that is given back."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.assembly import resolve_device
from tests.gpu.building import Audio


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The CUDA device. Fails where there is none: nothing passes that was not run."""
    return resolve_device("cuda")


@pytest.fixture(autouse=True)
def _own_memory_and_whole_float32(device: torch.device) -> Iterator[None]:
    """No TF32, in products nor in convolutions; engines of one test are gone before the next."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    yield
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where checkpoints are made, each once."""
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def speech() -> tuple[Audio, ...]:
    """Spoken windows of up to 6 s; the first is two sentences, whose words are known."""
    pytest.importorskip("av", reason="the clips are FLAC")
    from tests.support.clips import MONOLOGUE, TWO_SENTENCES, read_clip

    monologue = read_clip(MONOLOGUE)
    window = 6 * 16_000
    starts = range(0, len(monologue) - window, window)
    return (read_clip(TWO_SENTENCES), *(monologue[at : at + window] for at in starts))
