from itertools import pairwise

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_server.errors import BadMessageError
from stream_server.pcm import ENCODINGS, PcmDecoder
from tests.support.sounds import s16le, tone


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


def decoded(decoder: PcmDecoder, chunks: list[bytes]) -> NDArray[np.float32]:
    return np.concatenate([*(decoder.decode(chunk) for chunk in chunks), decoder.flush()])


def noise_bytes(encoding: str, num_bytes: int) -> bytes:
    random = np.random.default_rng(7)
    if encoding == "pcm_f32le":
        return random.uniform(-1.2, 1.2, num_bytes // 4).astype("<f4").tobytes()
    return random.integers(0, 256, num_bytes, dtype=np.uint8).tobytes()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    encoding=st.sampled_from(ENCODINGS),
    channels=st.integers(1, 2),
    sample_rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    cuts=st.lists(st.integers(0, 2**31), max_size=30),
)
def test_any_chunking_gives_equal_samples(
    encoding: str, channels: int, sample_rate: int, cuts: list[int]
) -> None:
    data = noise_bytes(encoding, 24_000)
    whole = PcmDecoder(sample_rate, encoding, channels)
    cut = PcmDecoder(sample_rate, encoding, channels)
    assert np.array_equal(decoded(whole, [data]), decoded(cut, pieces(data, cuts)))
    assert whole.samples_received == cut.samples_received


def test_16_bit_full_scale_is_one() -> None:
    samples = PcmDecoder(16000, "pcm_s16le", 1).decode(b"\x00\x80\x00\x00\x00\x40\xff\x7f")
    assert samples.tolist() == [-1.0, 0.0, 0.5, 32767 / 32768]


def test_floats_beyond_full_scale_are_clipped() -> None:
    data = np.array([0.25, -3, 1e30], "<f4").tobytes()
    assert PcmDecoder(16000, "pcm_f32le", 1).decode(data).tolist() == [0.25, -1, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_float_that_is_not_finite_is_a_bad_message(bad: float) -> None:
    with pytest.raises(BadMessageError, match=r"audio: got the sample (nan|inf|-inf), takes"):
        PcmDecoder(16000, "pcm_f32le", 1).decode(np.array([0, bad], "<f4").tobytes())


# The extremes, the two zeros and one value between, from the tables of ITU-T G.711.
@pytest.mark.parametrize(
    ("encoding", "codes", "values"),
    [
        ("mulaw", [0x00, 0x80, 0xFF, 0x7F, 0xF0], [-32124, 32124, 0, 0, 120]),
        ("alaw", [0x2A, 0xAA, 0xD5, 0x55, 0x80], [-32256, 32256, 8, -8, 5504]),
    ],
)
def test_telephone_codes_have_the_values_of_the_standard(
    encoding: str, codes: list[int], values: list[int]
) -> None:
    samples = PcmDecoder(16000, encoding, 1).decode(bytes(codes))
    assert (samples * 32768).tolist() == values


def test_two_channels_are_averaged() -> None:
    left, right = np.array([0.5, -0.5, 1.0]), np.array([0.25, 0.5, 1.0])
    data = np.stack([left, right], axis=1).astype("<f4").tobytes()
    assert PcmDecoder(16000, "pcm_f32le", 2).decode(data).tolist() == [0.375, 0.0, 1.0]


@pytest.mark.parametrize("sample_rate", [8000, 11025, 44100, 48000])
def test_a_resampled_tone_keeps_its_length_and_its_pitch(sample_rate: int) -> None:
    samples = decoded(PcmDecoder(sample_rate, "pcm_s16le", 1), [s16le(tone(1.0, sample_rate))])
    assert len(samples) == 16000
    # The edges ring: silence is taken to lie beyond them.
    assert np.abs(samples - tone(1.0))[500:-500].max() < 1e-3


def test_resampling_in_blocks_equals_resampling_at_once() -> None:
    speech = np.frombuffer(noise_bytes("pcm_f32le", 48_000), "<f4").clip(-1, 1)
    at_once = soxr.resample(speech, 48000, 16000, "HQ").clip(-1, 1)
    in_blocks = decoded(PcmDecoder(48000, "pcm_f32le", 1), [speech.tobytes()])
    assert np.abs(at_once - in_blocks).max() < 1e-6


def test_a_flush_owes_nothing_and_the_stream_goes_on() -> None:
    decoder = PcmDecoder(48000, "pcm_s16le", 1)
    half = s16le(tone(0.5, 48000))
    first = np.concatenate([decoder.decode(half), decoder.flush()])
    second = np.concatenate([decoder.decode(half), decoder.flush()])
    assert len(first) == len(second) == 8000
    assert np.array_equal(first, second)
    assert len(decoder.flush()) == 0


def test_a_flush_keeps_the_first_half_of_a_sample() -> None:
    decoder = PcmDecoder(16000, "pcm_s16le", 1)
    assert decoder.decode(b"\x00").tolist() == []
    assert decoder.flush().tolist() == []
    assert decoder.decode(b"\x40").tolist() == [0.5]


def test_samples_are_counted_in_the_clients_own_stream() -> None:
    decoder = PcmDecoder(48000, "pcm_s16le", 2)
    decoder.decode(bytes(4 * 100 + 3))
    assert decoder.samples_received == 100
    assert decoder.bytes_per_second == 192_000
