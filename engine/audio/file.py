"""Any audio file that FFmpeg reads, as the samples the engine takes."""

from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE
from engine.errors import AudioError


def read_audio(path: Path) -> NDArray[np.float32]:
    """Decode the first audio stream of `path` to [samples] float32, 16 kHz mono.

    Raises AudioError that names the file for anything that cannot be read.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise AudioError(f"{path}: expected an audio stream, found none")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            frames = [
                resampled.to_ndarray()[0]
                for decoded in [*container.decode(audio=0), None]
                for resampled in resampler.resample(decoded)
            ]
    except (FFmpegError, OSError, ValueError) as exc:
        raise AudioError(f"{path}: cannot be read as audio: {exc}") from exc
    if not frames:
        raise AudioError(f"{path}: expected audio, found an empty stream")
    return np.concatenate(frames).astype(np.float32, copy=False)
