"""PCM bytes of any accepted encoding, rate and chunking to float32 samples, 16 kHz, mono.

The same bytes give bit-equal samples however they are cut into chunks: bytes of an incomplete
sample are carried over, and the resampler is always fed blocks of one size.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE
from stream_server.errors import BadMessageError

FloatSamples = NDArray[np.float32]

BLOCK_MS: Final = 10  # resampler input: small beside a VAD frame, large beside the call's cost
SOXR_QUALITY: Final = "HQ"  # flat to 7 kHz; LQ loses the band that tells s from f


def _mulaw_table() -> FloatSamples:
    """ITU-T G.711 mu-law: every byte's value."""
    code = ~np.arange(256) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return np.asarray(np.where(code & 0x80, -magnitude, magnitude) / 32768, np.float32)


def _alaw_table() -> FloatSamples:
    """ITU-T G.711 A-law: every byte's value."""
    code = np.arange(256) ^ 0x55
    exponent = (code & 0x70) >> 4
    mantissa = ((code & 0x0F) << 4) + np.where(exponent == 0, 0x08, 0x108)
    magnitude = mantissa << np.maximum(exponent - 1, 0)
    return np.asarray(np.where(code & 0x80, magnitude, -magnitude) / 32768, np.float32)


_MULAW: Final = _mulaw_table()
_ALAW: Final = _alaw_table()


def _from_s16le(data: bytes) -> FloatSamples:
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def _from_f32le(data: bytes) -> FloatSamples:
    samples = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(samples).all():
        bad = samples[~np.isfinite(samples)][0]
        raise BadMessageError(f"audio: got the sample {bad}, takes finite numbers from -1 to 1")
    return np.clip(samples, -1, 1)  # beyond it nothing downstream is defined


def _from_mulaw(data: bytes) -> FloatSamples:
    return _MULAW[np.frombuffer(data, np.uint8)]


def _from_alaw(data: bytes) -> FloatSamples:
    return _ALAW[np.frombuffer(data, np.uint8)]


_DECODERS: Final[Mapping[str, tuple[int, Callable[[bytes], FloatSamples]]]] = {
    "pcm_s16le": (2, _from_s16le),
    "pcm_f32le": (4, _from_f32le),
    "mulaw": (1, _from_mulaw),
    "alaw": (1, _from_alaw),
}
ENCODINGS: Final = tuple(_DECODERS)


class PcmDecoder:
    """One client's stream of PCM bytes. Touched only by its session.

    `encoding` is one of ENCODINGS; two `channels` are averaged. Raises BadMessageError for a
    float sample that is not finite.
    """

    def __init__(self, sample_rate: int, encoding: str, channels: int) -> None:
        sample_bytes, self._to_float = _DECODERS[encoding]
        self._channels = channels
        self._frame_bytes = sample_bytes * channels
        self._carried = b""
        self._resampler = None if sample_rate == SAMPLE_RATE else Resampler(sample_rate)
        self.bytes_per_second = sample_rate * self._frame_bytes
        self.samples_received = 0  # of the client's own stream, whole ones, per channel

    def decode(self, chunk: bytes) -> FloatSamples:
        """The 16 kHz samples [n] that this chunk completes."""
        data = self._carried + chunk
        whole = len(data) - len(data) % self._frame_bytes
        self._carried = data[whole:]
        self.samples_received += whole // self._frame_bytes
        samples = self._to_float(data[:whole])
        if self._channels == 2:
            samples = (samples[0::2] + samples[1::2]) * np.float32(0.5)
        return samples if self._resampler is None else self._resampler.feed(samples)

    def flush(self) -> FloatSamples:
        """What the resampler still holds back; the stream may go on after it.

        An incomplete sample stays carried.
        """
        return np.empty(0, np.float32) if self._resampler is None else self._resampler.flush()


class Resampler:
    """A stream at `sample_rate` to 16 kHz, in blocks of one size."""

    def __init__(self, sample_rate: int) -> None:
        self._stream = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, "float32", SOXR_QUALITY)
        self._block = sample_rate * BLOCK_MS // 1000
        self._waiting = np.empty(0, np.float32)

    def feed(self, samples: FloatSamples) -> FloatSamples:
        """The output that the blocks completed by `samples` give."""
        waiting = np.concatenate([self._waiting, samples])
        whole = len(waiting) - len(waiting) % self._block
        self._waiting = waiting[whole:]
        blocks = waiting[:whole].reshape(-1, self._block)
        return _joined([self._stream.resample_chunk(block) for block in blocks])

    def flush(self) -> FloatSamples:
        """The output still owed, as if silence followed; then begins afresh."""
        tail = self._stream.resample_chunk(self._waiting, last=True)
        self._waiting = np.empty(0, np.float32)
        self._stream.clear()
        return _joined([tail])


def _joined(parts: list[FloatSamples]) -> FloatSamples:
    # soxr overshoots full scale by a little at steps.
    joined: FloatSamples = np.concatenate([np.empty(0, np.float32), *parts])
    return joined.clip(-1, 1)
