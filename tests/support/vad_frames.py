"""Audio as the detector takes it."""

import numpy as np
from numpy.typing import NDArray

from stream_server.endpointer import VAD_FRAME_SAMPLES

Array = NDArray[np.float32]


def noise(num_samples: int, seed: int = 0) -> Array:
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def frames_of(samples: Array) -> Array:
    return samples[: len(samples) // VAD_FRAME_SAMPLES * VAD_FRAME_SAMPLES].reshape(
        -1, VAD_FRAME_SAMPLES
    )
