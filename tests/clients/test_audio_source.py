import asyncio
import io
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from clients.audio_source import AudioSource, AudioSourceError, open_audio
from tests.support.clips import DEMO, TWO_SENTENCES, read_clip

RAMP = np.linspace(-1, 1, 16_000, endpoint=False)


def wav_bytes(samples: np.ndarray, width: int, rate: int = 16_000, channels: int = 1) -> bytes:
    """`samples` in [-1, 1) as a PCM WAV of that many bytes per sample."""
    scaled = np.floor(samples * 2.0 ** (8 * width - 1)).astype("<i4")
    if width == 1:
        data = (scaled + 128).astype(np.uint8).tobytes()
    else:
        data = scaled.view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(data)
    return file.getvalue()


class Trickle(io.BytesIO):
    """A pipe: hands out at most a few bytes per read and cannot seek."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(7 if size is None or size < 0 else min(7, size))

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_wav_of_any_width_becomes_the_same_16_bit_samples(tmp_path: Path, width: int) -> None:
    path = tmp_path / "ramp.wav"
    path.write_bytes(wav_bytes(RAMP, width))
    pcm = np.frombuffer(b"".join(open_audio(path).chunks), "<i2")
    expected = np.floor(RAMP * 2**15).astype(np.int16)
    if width == 1:
        expected = expected >> 8 << 8
    np.testing.assert_array_equal(pcm, expected)


def test_a_wav_keeps_its_rate_and_channels_and_comes_in_chunks_of_40_ms(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    path.write_bytes(wav_bytes(RAMP[: 2 * 3000], 2, rate=44_100, channels=2))
    source = open_audio(path)
    assert (source.sample_rate, source.channels) == (44_100, 2)
    assert [len(chunk) for chunk in source.chunks] == [1764 * 4, (3000 - 1764) * 4]


def test_a_flac_is_decoded_to_the_samples_it_holds() -> None:
    source = open_audio(TWO_SENTENCES)
    chunks = list(source.chunks)
    assert (source.sample_rate, source.channels) == (16_000, 1)
    assert {len(chunk) for chunk in chunks[:-1]} == {1280}
    pcm = np.frombuffer(b"".join(chunks), "<i2")
    np.testing.assert_array_equal(pcm, np.round(read_clip(TWO_SENTENCES) * 2**15))


def test_a_wav_beyond_the_protocol_is_resampled(tmp_path: Path) -> None:
    path = tmp_path / "studio.wav"
    path.write_bytes(wav_bytes(RAMP, 2, rate=96_000))
    source = open_audio(path)
    num_bytes = sum(map(len, source.chunks))
    assert source.sample_rate == 16_000
    assert source.seconds(num_bytes) == pytest.approx(16_000 / 96_000, abs=0.002)


def test_raw_standard_input_is_16_khz_mono_however_it_trickles_in() -> None:
    pcm = bytes(range(256)) * 20 + b"odd"
    source = open_audio("-", Trickle(pcm))
    chunks = list(source.chunks)
    assert (source.sample_rate, source.channels) == (16_000, 1)
    assert b"".join(chunks) == pcm
    assert {len(chunk) for chunk in chunks[:-1]} == {1280}


def test_a_wav_on_standard_input_is_known_by_its_first_bytes() -> None:
    source = open_audio("-", Trickle(wav_bytes(RAMP[:1000], 2, rate=8_000)))
    assert source.sample_rate == 8_000
    assert b"".join(source.chunks) == np.floor(RAMP[:1000] * 2**15).astype("<i2").tobytes()


def test_empty_standard_input_holds_no_chunk() -> None:
    assert list(open_audio("-", io.BytesIO()).chunks) == []


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp3"
    text.write_text("no sound in here")
    with pytest.raises(AudioSourceError, match=r"missing\.wav: no such file"):
        open_audio(tmp_path / "missing.wav")
    with pytest.raises(AudioSourceError, match=r"notes\.mp3: not an audio file"):
        open_audio(text)
    with pytest.raises(AudioSourceError, match=r"standard input: .*PCM WAV"):
        open_audio("-", io.BytesIO(b"RIFFxxxxJUNK"))


def test_without_pyav_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioSourceError, match="pip install av"):
        open_audio(DEMO)


class Clock:
    """A clock that moves when somebody sleeps, and oversleeps by `late_s` each time."""

    def __init__(self, late_s: float) -> None:
        self.now_s = 100.0
        self.late_s = late_s

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds + self.late_s


def sending_times(speed: float, late_s: float) -> list[float]:
    clock = Clock(late_s)
    source = AudioSource(16_000, 1, iter([bytes(1280)] * 50))

    async def send() -> list[float]:
        return [
            clock.now_s - 100.0 async for _ in source.paced(speed, now=clock, sleep=clock.sleep)
        ]

    return asyncio.run(send())


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_chunks_are_sent_when_a_microphone_would_have_them(speed: float) -> None:
    expected = [0.04 * (k + 1) / speed for k in range(50)]
    assert sending_times(speed, late_s=0) == pytest.approx(expected)


def test_oversleeping_does_not_add_up() -> None:
    assert sending_times(1.0, late_s=0.009)[-1] == pytest.approx(50 * 0.04 + 0.009)


def test_speed_zero_never_waits() -> None:
    assert sending_times(0.0, late_s=1.0) == [0.0] * 50
