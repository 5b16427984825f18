from functools import cache
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.audio.units import MAX_WINDOW_FRAMES, MAX_WINDOW_SAMPLES, SAMPLE_RATE
from engine.model.mel import LogMel, MelWindow, mel_filters

LENGTHS = (0, 1, 100, 201, 400, 16_000, 77_777, 479_999, 480_000)


@cache
def extractor(num_mels: int) -> Any:
    kind: Any = transformers.WhisperFeatureExtractor
    return kind(feature_size=num_mels)


@cache
def log_mel(num_mels: int) -> LogMel:
    return LogMel(num_mels)


def speech_like(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Loud and quiet stretches over many decades, so that the clamp matters."""
    generator = np.random.default_rng(seed)
    level = np.repeat(10.0 ** generator.uniform(-5, 0, count // 1600 + 1), 1600)[:count]
    tone = np.sin(np.arange(count) * 0.07)
    samples = 0.3 * level * (tone + generator.standard_normal(count))
    return np.asarray(samples, dtype=np.float32)


def new_window(num_mels: int = 80) -> MelWindow:
    # Whatever the row held before must not matter.
    frames = np.full((MAX_WINDOW_FRAMES, num_mels), 1e9, dtype=np.float32)
    return MelWindow(log_mel(num_mels), frames)


def at_once(samples: NDArray[np.float32], num_mels: int = 80) -> MelWindow:
    window = new_window(num_mels)
    window.update(samples)
    return window


@pytest.mark.parametrize("num_mels", [80, 128])
def test_the_filters_are_those_of_transformers(num_mels: int) -> None:
    np.testing.assert_allclose(mel_filters(num_mels), extractor(num_mels).mel_filters, atol=1e-12)


@pytest.mark.parametrize("num_mels", [80, 128])
@pytest.mark.parametrize("count", LENGTHS)
def test_the_features_are_those_of_transformers(count: int, num_mels: int) -> None:
    samples = speech_like(count)
    padded = np.pad(samples, (0, MAX_WINDOW_SAMPLES - count))
    output = extractor(num_mels)(padded, sampling_rate=SAMPLE_RATE, return_tensors="np")
    features = at_once(samples, num_mels).features(MAX_WINDOW_FRAMES)
    np.testing.assert_allclose(features, output.input_features[0].T, rtol=0, atol=1e-4)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 12_000), min_size=1, max_size=8), st.integers(0, 99))
def test_appended_audio_gives_bit_for_bit_what_the_whole_gives(sizes: list[int], seed: int) -> None:
    samples = speech_like(sum(sizes), seed)
    window = new_window()
    for end in np.cumsum(sizes):
        window.update(samples[:end])
    expected = at_once(samples)
    for num_frames in (MAX_WINDOW_FRAMES, 700, 1):
        np.testing.assert_array_equal(window.features(num_frames), expected.features(num_frames))


@pytest.mark.parametrize("beyond", [-1, 0, 1, 159, 160, 199, 200, 201, 202])
@pytest.mark.parametrize("block", [1, 2])
def test_a_frame_is_final_only_once_all_it_covers_is_there(block: int, beyond: int) -> None:
    samples = speech_like(20_000)
    window = new_window()
    last_frame = block * 32 - 1
    window.update(samples[: last_frame * 160 + beyond])
    window.update(samples)
    np.testing.assert_array_equal(window.features(3000), at_once(samples).features(3000))


def test_a_window_filled_to_the_end_in_uneven_steps_equals_the_whole() -> None:
    samples = speech_like(MAX_WINDOW_SAMPLES)
    window = new_window()
    for end in (*range(5_119, MAX_WINDOW_SAMPLES, 40_003), MAX_WINDOW_SAMPLES - 1):
        window.update(samples[:end])
    window.update(samples)
    np.testing.assert_array_equal(window.features(3000), at_once(samples).features(3000))


@pytest.mark.parametrize("num_frames", [1, 128, 999, 2999])
@pytest.mark.parametrize("count", [0, 201, 77_777, 480_000])
def test_trimmed_features_are_the_first_of_the_full_ones(count: int, num_frames: int) -> None:
    window = at_once(speech_like(count))
    np.testing.assert_array_equal(window.features(num_frames), window.features(3000)[:num_frames])


@pytest.mark.parametrize("first", [0, 1, 31, 485, 490, 999])
@pytest.mark.parametrize("count", [0, 201, 77_777])
def test_features_from_a_frame_on_are_the_last_of_those_from_the_start(
    count: int, first: int
) -> None:
    """Also where the first of them lies behind the audio, of 2, 3 and 488 frames."""
    window = at_once(speech_like(count))
    features = window.features(1000, first)
    assert features.shape == (1000 - first, 80)
    np.testing.assert_array_equal(features, window.features(1000)[first:])


def test_the_loudest_frame_counts_though_it_lies_before_the_first_asked_for() -> None:
    samples = speech_like(32_000)
    samples[:3200] = 10 * samples[:3200].clip(-1, 1) + 1
    loud_start = at_once(samples)
    features = loud_start.features(300, 100)
    np.testing.assert_array_equal(features, loud_start.features(300)[100:])
    assert features.max() < loud_start.features(300).max()


def test_a_restarted_window_knows_nothing_of_the_one_before() -> None:
    window = at_once(speech_like(100_000, seed=1))
    window.restart()
    samples = speech_like(20_000, seed=2)
    window.update(samples)
    np.testing.assert_array_equal(window.features(3000), at_once(samples).features(3000))


def test_a_window_of_more_than_thirty_seconds_is_refused() -> None:
    with pytest.raises(ValueError, match="a window holds 480000 samples at most, got 480001"):
        at_once(np.zeros(MAX_WINDOW_SAMPLES + 1, dtype=np.float32))
