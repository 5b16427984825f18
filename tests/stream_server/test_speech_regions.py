"""Regions of the spoken clips, with the real detector, against a session that hears them."""

from collections.abc import Sequence

import numpy as np
import pytest

from engine.audio.units import SAMPLE_RATE, Samples, samples_from_ms
from engine.events import AppendAudio, OpenUtterance, UtteranceId, UtteranceOptions
from stream_server import protocol
from stream_server.effects import Effect, Score, Submit
from stream_server.endpointer import Endpointer
from stream_server.silero_net import SileroNet, VadState
from stream_server.speech_gate import SpeechGate
from stream_server.speech_regions import find_speech
from tests.support.clips import DEMO, TWO_SENTENCES, read_clip
from tests.support.engines import Audio
from tests.support.sounds import silence, tone


@pytest.fixture(scope="module")
def net() -> SileroNet:
    return SileroNet()


def hear(
    audio: Audio, net: SileroNet, settings: protocol.Start, chunk_samples: int
) -> list[tuple[Samples, Samples]]:
    """The utterances of a session that is sent `audio` in chunks and scored frame by frame."""
    ids = iter(range(1000))
    endpointer = Endpointer(settings.vad_threshold, samples_from_ms(settings.endpoint_silence_ms))
    gate = SpeechGate(endpointer, UtteranceOptions(), lambda: UtteranceId(next(ids)))
    state, effects = VadState(), list[Effect]()
    for start in range(0, len(audio), chunk_samples):
        for effect in gate.receive_audio(audio[start : start + chunk_samples]):
            assert isinstance(effect, Score)
            (state,), (scores,) = net.advance([state], [effect.frames])
            for probability in scores:
                effects += gate.receive_probability(float(probability))
            effects += gate.release()
    effects += [*gate.release(), *gate.cut(Samples(len(audio)))]
    return utterances(effects)


def utterances(effects: Sequence[Effect]) -> list[tuple[Samples, Samples]]:
    commands = [effect.command for effect in effects if isinstance(effect, Submit)]
    starts = {c.utterance_id: c.start for c in commands if isinstance(c, OpenUtterance)}
    lengths = dict.fromkeys(starts, 0)
    for command in commands:
        if isinstance(command, AppendAudio):
            lengths[command.utterance_id] += len(command.samples)
    return [(start, Samples(start + lengths[number])) for number, start in starts.items()]


@pytest.mark.parametrize("silence_ms", [200, 500])
@pytest.mark.parametrize("chunk_samples", [640, 7777])
def test_a_recording_is_cut_into_the_utterances_that_a_session_would_hear(
    net: SileroNet, silence_ms: int, chunk_samples: int
) -> None:
    clip = read_clip(DEMO)[: 12 * SAMPLE_RATE]
    settings = protocol.Start(endpoint_silence_ms=silence_ms)
    regions = find_speech(clip, net, settings)
    assert regions == hear(clip, net, settings, chunk_samples)
    assert len(regions) > 2


def test_regions_are_in_order_apart_and_inside_of_the_recording(net: SileroNet) -> None:
    clip = read_clip(DEMO)
    regions = find_speech(clip, net, protocol.Start())
    edges = [0, *(edge for region in regions for edge in region), len(clip)]
    assert edges == sorted(edges)
    assert all(start < end for start, end in regions)


def test_speech_lies_inside_of_the_regions_and_silence_between_them(net: SileroNet) -> None:
    clip = read_clip(TWO_SENTENCES)
    pause = silence(2)
    recording = np.concatenate([pause, clip, pause, clip, pause])
    first, second = len(pause), 2 * len(pause) + len(clip)
    heard = np.zeros(len(recording), dtype=bool)
    for start, end in find_speech(recording, net, protocol.Start()):
        heard[start:end] = True
    for begin in (first, second):
        speech = slice(begin, begin + len(clip))
        assert heard[speech].mean() > 0.8
        heard[begin - SAMPLE_RATE // 2 : begin + len(clip) + SAMPLE_RATE // 2] = False
    assert not heard.any()


def test_a_longer_endpoint_joins_what_a_shorter_one_divides(net: SileroNet) -> None:
    clip = read_clip(DEMO)
    counts = [
        len(find_speech(clip, net, protocol.Start(endpoint_silence_ms=ms)))
        for ms in (150, 500, 4000)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] == 1


def test_a_threshold_that_nothing_reaches_hears_nothing(net: SileroNet) -> None:
    clip = read_clip(TWO_SENTENCES)
    assert find_speech(clip, net, protocol.Start(vad_threshold=1.0)) == []


@pytest.mark.parametrize("nothing", [silence(0), silence(0.01), silence(3), tone(3)])
def test_where_nobody_speaks_there_is_no_region(net: SileroNet, nothing: Audio) -> None:
    assert find_speech(nothing, net, protocol.Start()) == []


def test_speech_that_lasts_to_the_end_is_heard_to_the_end(net: SileroNet) -> None:
    clip = read_clip(TWO_SENTENCES)[: SAMPLE_RATE + 77]
    ((_, end),) = find_speech(clip, net, protocol.Start())
    assert end == len(clip)
