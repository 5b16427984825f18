import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stream_server.endpointer import VAD_FRAME_SAMPLES
from stream_server.silero_net import DetectorError, SileroNet, VadState, packaged_model
from tests.support.clips import TWO_SENTENCES, read_clip
from tests.support.vad_frames import Array, frames_of, noise


@pytest.fixture(scope="module")
def net() -> SileroNet:
    return SileroNet()


@pytest.fixture(scope="module")
def speech() -> Array:
    return read_clip(TWO_SENTENCES)


@pytest.fixture(scope="module")
def published() -> Callable[[Array], Array]:
    """The package's own model, fed frame by frame as its README does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit, in its own words
        model = torch.jit.load(str(packaged_model()))  # type: ignore[no-untyped-call]

    def score(samples: Array) -> Array:
        model.reset_states()
        frames = torch.from_numpy(frames_of(samples))
        with torch.inference_mode():
            return np.array([float(model(frame[None], 16_000)) for frame in frames], np.float32)

    return score


def test_the_network_equals_the_published_model_on_noise(
    net: SileroNet, published: Callable[[Array], Array]
) -> None:
    samples = noise(VAD_FRAME_SAMPLES * 60)
    np.testing.assert_allclose(net.score(samples), published(samples), atol=1e-5)


def test_the_network_equals_the_published_model_on_speech(
    net: SileroNet, published: Callable[[Array], Array], speech: Array
) -> None:
    samples = speech[: VAD_FRAME_SAMPLES * 92]  # the first sentence, and the pause after it
    expected = published(samples)
    assert expected.max() > 0.99
    assert expected[-1] < 0.35
    np.testing.assert_allclose(net.score(samples), expected, atol=1e-5)


def test_a_stream_is_scored_alike_alone_and_beside_others(net: SileroNet, speech: Array) -> None:
    recordings = [
        frames_of(recording)
        for recording in (noise(512 * 3), speech[:40_000], noise(512, 1), speech, noise(80_000, 2))
    ]
    _, together = net.advance([VadState()] * len(recordings), recordings)
    for recording, beside_others in zip(recordings, together, strict=True):
        np.testing.assert_allclose(beside_others, net.score(recording.reshape(-1)), atol=1e-6)


def test_any_division_of_a_stream_into_calls_gives_the_same(net: SileroNet, speech: Array) -> None:
    frames = frames_of(speech)
    state, scores = VadState(), []
    for part in np.split(frames, [1, 2, 9, 40, 41]):
        (state,), (probabilities,) = net.advance([state], [part])
        scores.append(probabilities)
    np.testing.assert_allclose(np.concatenate(scores), net.score(speech)[: len(frames)], atol=1e-6)


def test_a_long_recording_is_scored_in_blocks_that_leave_no_seam(net: SileroNet) -> None:
    frames = frames_of(noise(512 * 1100))
    _, (at_once,) = net.advance([VadState()], [frames])
    np.testing.assert_allclose(net.score(frames.reshape(-1)), at_once, atol=1e-6)


def test_the_last_frame_of_a_recording_is_completed_with_silence(net: SileroNet) -> None:
    samples = noise(512 * 4 + 100)
    padded = np.concatenate([samples, np.zeros(412, np.float32)])
    np.testing.assert_array_equal(net.score(samples), net.score(padded))
    assert len(net.score(samples)) == 5
    assert len(net.score(samples[:0])) == 0


def test_speech_scores_high_and_the_pause_between_sentences_low(
    net: SileroNet, speech: Array
) -> None:
    heard = (net.score(speech) > 0.5).astype(int)
    assert int((np.diff(heard) == 1).sum()) == 2


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "not_a_model.jit"
    path.write_bytes(b"no archive")
    with pytest.raises(DetectorError, match=r"not_a_model\.jit: not the 16 kHz Silero network"):
        SileroNet(path)
