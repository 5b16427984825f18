import re
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.audio.file import read_audio
from engine.audio.units import SAMPLE_RATE
from engine.errors import AudioError
from tests.support.clips import TWO_SENTENCES, read_clip


def sine(rate: int, seconds: float = 1.0, hz: float = 440.0) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def write_wav(path: Path, rate: int, *channels: NDArray[np.float64]) -> Path:
    """16-bit PCM, one array for each channel."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.stack(channels, axis=1) * 32767).astype("<i2").tobytes())
    return path


def test_a_clip_at_16_khz_is_its_own_samples() -> None:
    samples = read_audio(TWO_SENTENCES)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    np.testing.assert_allclose(samples, read_clip(TWO_SENTENCES), atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_any_rate_becomes_16_khz_without_a_change_of_pitch_or_length(
    tmp_path: Path, rate: int
) -> None:
    samples = read_audio(write_wav(tmp_path / "tone.wav", rate, sine(rate)))
    assert abs(len(samples) - SAMPLE_RATE) <= 2, "what the resampler holds back is asked for"
    middle = samples[2000:-2000]  # beside the edges of the resampler's filter
    expected = sine(SAMPLE_RATE)[2000:][: len(middle)]
    # The phase may differ by what a filter delays, so the spectra are compared.
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) == pytest.approx(440 * len(middle) / SAMPLE_RATE, abs=1)
    assert np.std(middle) == pytest.approx(np.std(expected), rel=0.02)


def test_channels_are_mixed_down(tmp_path: Path) -> None:
    tone = sine(SAMPLE_RATE)
    both = read_audio(write_wav(tmp_path / "both.wav", SAMPLE_RATE, tone, tone))
    one = read_audio(write_wav(tmp_path / "one.wav", SAMPLE_RATE, tone, 0 * tone))
    np.testing.assert_allclose(one, both / 2, atol=1e-3)
    assert np.std(one) > 0.1


def write_film(path: Path, sound: NDArray[np.float64] | None) -> Path:
    """One black picture, and `sound` at 16 kHz."""
    with av.open(str(path), "w") as film:
        picture = film.add_stream("mpeg4", rate=25)
        picture.width = picture.height = 16
        picture.pix_fmt = "yuv420p"
        track = None if sound is None else film.add_stream("pcm_s16le", rate=SAMPLE_RATE)
        black = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        film.mux([*picture.encode(black), *picture.encode(None)])
        if track is not None and sound is not None:
            pcm = (sound * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
            frame.rate = SAMPLE_RATE
            film.mux([*track.encode(frame), *track.encode(None)])
    return path


def test_the_sound_of_a_film_is_read(tmp_path: Path) -> None:
    tone = sine(SAMPLE_RATE)
    samples = read_audio(write_film(tmp_path / "film.mkv", tone))
    np.testing.assert_allclose(samples, tone, atol=1e-3)


def test_what_cannot_be_read_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    noise = tmp_path / "noise.wav"
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    empty = tmp_path / "empty.wav"
    empty.touch()
    for path in (noise, empty, tmp_path / "missing.wav", tmp_path):
        with pytest.raises(AudioError, match=f"^{re.escape(str(path))}: cannot be read as audio"):
            read_audio(path)


def test_a_file_without_a_sound_is_refused(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "nothing.wav", SAMPLE_RATE, np.zeros(0))
    with pytest.raises(AudioError, match=r"nothing\.wav: expected audio, found an empty stream"):
        read_audio(path)


def test_a_film_without_sound_is_refused(tmp_path: Path) -> None:
    path = write_film(tmp_path / "silent.mkv", None)
    with pytest.raises(AudioError, match=r"silent\.mkv: expected an audio stream, found none"):
        read_audio(path)


def test_a_file_that_breaks_off_is_refused_and_not_taken_for_a_short_one(tmp_path: Path) -> None:
    path = tmp_path / "broken.flac"
    path.write_bytes(TWO_SENTENCES.read_bytes()[:30_000])
    with pytest.raises(AudioError, match=r"broken\.flac: cannot be read as audio"):
        read_audio(path)
