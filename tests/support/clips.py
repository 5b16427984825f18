"""The spoken clips of the repository as samples."""

from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

REPOSITORY: Final = Path(__file__).parents[2]
DEMO: Final = REPOSITORY / "clients" / "demo" / "demo.flac"
TWO_SENTENCES: Final = REPOSITORY / "tests" / "fixtures" / "audio" / "two_sentences.flac"
MONOLOGUE: Final = REPOSITORY / "tests" / "fixtures" / "audio" / "monologue.flac"


def read_clip(path: Path) -> NDArray[np.float32]:
    """A 16 kHz mono 16-bit clip as float32 in [-1, 1]."""
    with av.open(str(path)) as container:
        pcm = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return pcm.astype(np.float32) / np.float32(2**15)
