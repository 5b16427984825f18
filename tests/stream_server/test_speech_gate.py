import numpy as np
import pytest
from numpy.typing import NDArray

from engine.audio.units import SAMPLE_RATE, Samples, samples_from_ms
from engine.events import (
    AppendAudio,
    CancelUtterance,
    FinishUtterance,
    OpenUtterance,
    PauseUtterance,
    UtteranceFinished,
    UtteranceId,
    UtteranceOptions,
)
from stream_server import protocol
from stream_server.effects import Effect, Score, Send, Submit
from stream_server.endpointer import VAD_FRAME_SAMPLES, Endpointer
from stream_server.speech_gate import PRE_ROLL, SpeechGate, frame_floor
from tests.support.engine_events import closed
from tests.support.scripted_detector import loudness_scores
from tests.support.sounds import silence, tone

ENDPOINT = samples_from_ms(500)
PAUSE = samples_from_ms(200)


class Gate:
    """A gate with a detector that answers at once, and what came out of it."""

    def __init__(self) -> None:
        self._next_id = 0
        self.gate = SpeechGate(
            Endpointer(0.5, ENDPOINT),
            UtteranceOptions(max_segment=Samples(2 * SAMPLE_RATE)),
            self._new_id,
        )
        self.effects: list[Effect] = []

    def _new_id(self) -> UtteranceId:
        self._next_id += 1
        return UtteranceId(self._next_id)

    def hear(self, *parts: NDArray[np.float32]) -> None:
        for effect in self.gate.receive_audio(np.concatenate(parts)):
            assert isinstance(effect, Score)
            for probability in loudness_scores(effect.frames):
                self.effects += self.gate.receive_probability(float(probability))
            self.effects += self.gate.release()

    def cut(self) -> None:
        self.effects += self.gate.cut(self.gate.received)

    def commands(self) -> list[str]:
        return [type(e.command).__name__ for e in self.effects if isinstance(e, Submit)]

    def audio(self, utterance: int) -> NDArray[np.float32]:
        return np.concatenate(
            [
                effect.command.samples
                for effect in self.effects
                if isinstance(effect, Submit)
                and isinstance(effect.command, AppendAudio)
                and effect.command.utterance_id == utterance
            ]
        )

    def start(self, utterance: int) -> Samples:
        return next(
            effect.command.start
            for effect in self.effects
            if isinstance(effect, Submit)
            and isinstance(effect.command, OpenUtterance)
            and effect.command.utterance_id == utterance
        )

    def told(self) -> list[protocol.ServerMessage]:
        return [effect.message for effect in self.effects if isinstance(effect, Send)]


def second(frames: int) -> float:
    return frames * VAD_FRAME_SAMPLES / SAMPLE_RATE


def test_silence_passes_nothing_and_is_forgotten() -> None:
    gate = Gate()
    gate.hear(silence(60))
    assert gate.effects == []
    assert gate.gate.unprocessed < VAD_FRAME_SAMPLES


def test_an_utterance_is_its_speech_with_300_ms_before_and_200_ms_after() -> None:
    gate = Gate()
    sound = np.concatenate([silence(second(20)), tone(second(30)), silence(second(20))])
    gate.hear(sound)
    begin, end = 20 * VAD_FRAME_SAMPLES - PRE_ROLL, 50 * VAD_FRAME_SAMPLES + PAUSE
    assert gate.start(1) == begin
    assert np.array_equal(gate.audio(1), sound[begin:end])
    assert gate.commands() == ["OpenUtterance", "AppendAudio", "PauseUtterance", "FinishUtterance"]
    assert gate.told() == [
        protocol.SpeechStarted(at=second(20)),
        protocol.SpeechStopped(at=second(50)),
    ]


def test_speech_from_the_first_sample_begins_there() -> None:
    gate = Gate()
    gate.hear(tone(1))
    assert gate.start(1) == 0


def test_audio_is_withheld_during_a_pause_and_given_when_speech_resumes() -> None:
    gate = Gate()
    sound = np.concatenate([tone(second(20)), silence(second(10))])
    gate.hear(sound)
    assert len(gate.audio(1)) == 20 * VAD_FRAME_SAMPLES + PAUSE
    gate.hear(tone(second(10)))
    assert len(gate.audio(1)) == 40 * VAD_FRAME_SAMPLES
    assert gate.commands()[-2:] == ["PauseUtterance", "AppendAudio"]


def test_what_was_withheld_becomes_the_next_utterances_pre_roll_and_no_sample_is_given_twice() -> (
    None
):
    gate = Gate()
    # Speech again 9 frames after the first utterance's audio ended: less than the pre-roll.
    gate.hear(tone(second(20)), silence(second(16)), tone(second(10)))
    first_end = 20 * VAD_FRAME_SAMPLES + PAUSE
    assert len(gate.audio(1)) == first_end
    assert gate.start(2) == max(first_end, 36 * VAD_FRAME_SAMPLES - PRE_ROLL)


def test_a_cut_in_the_midst_of_speech_takes_every_sample() -> None:
    gate = Gate()
    sound = tone(1.01)
    gate.hear(sound)
    gate.cut()
    assert np.array_equal(gate.audio(1), sound)
    assert gate.commands()[-1] == "FinishUtterance"
    assert gate.told()[-1] == protocol.SpeechStopped(at=1.01)


def test_speech_that_goes_on_after_a_cut_begins_exactly_there() -> None:
    gate = Gate()
    sound = tone(2.02)
    gate.hear(sound[:16_160])
    gate.cut()
    gate.hear(sound[16_160:])
    gate.cut()
    assert gate.start(2) == 16_160
    assert np.array_equal(np.concatenate([gate.audio(1), gate.audio(2)]), sound)
    at = [m.at for m in gate.told() if isinstance(m, protocol.SpeechStarted)]
    assert at == [0.0, 1.01]


def test_a_cut_during_a_pause_gives_nothing_more() -> None:
    gate = Gate()
    gate.hear(tone(second(20)), silence(second(10)))
    gate.cut()
    assert len(gate.audio(1)) == 20 * VAD_FRAME_SAMPLES + PAUSE
    assert gate.commands()[-1] == "FinishUtterance"
    assert gate.told()[-1] == protocol.SpeechStopped(at=second(20))


def test_a_cut_in_silence_does_nothing() -> None:
    gate = Gate()
    gate.hear(silence(1))
    gate.cut()
    assert gate.effects == []


def test_what_the_engine_must_wait_for_is_not_unprocessed() -> None:
    gate = Gate()
    gate.hear(tone(second(60)))  # 1.92 s, within max_segment
    assert gate.gate.unprocessed == 0
    gate.hear(tone(second(10)))
    assert gate.gate.unprocessed == 70 * VAD_FRAME_SAMPLES - 2 * SAMPLE_RATE


def test_a_finished_utterance_is_unprocessed_until_the_engine_is_done_with_it() -> None:
    gate = Gate()
    gate.hear(tone(second(40)), silence(second(16)))
    held = 40 * VAD_FRAME_SAMPLES + PAUSE
    assert gate.gate.unprocessed == held
    gate.gate.receive_event(closed(1, "words", end=10_000))
    assert gate.gate.unprocessed == held - 10_000
    gate.gate.receive_event(UtteranceFinished(UtteranceId(1)))
    assert gate.gate.unprocessed == 0


def test_frames_not_yet_scored_are_unprocessed() -> None:
    gate = Gate()
    gate.gate.receive_audio(silence(3))
    assert gate.gate.unprocessed == 3 * SAMPLE_RATE


def test_cancelling_gives_up_whatever_the_engine_is_not_done_with() -> None:
    gate = Gate()
    gate.hear(tone(1), silence(1), tone(1), silence(1), tone(1))
    gate.gate.receive_event(UtteranceFinished(UtteranceId(1)))
    cancelled = [Submit(CancelUtterance(UtteranceId(n))) for n in (2, 3)]
    assert gate.gate.cancel() == cancelled
    assert gate.gate.cancel() == []


@pytest.mark.parametrize(("position", "floor"), [(0, 0), (511, 0), (512, 512), (1025, 1024)])
def test_a_frame_is_complete_with_its_last_sample(position: int, floor: int) -> None:
    assert frame_floor(Samples(position)) == floor


def test_commands_name_the_utterance_they_belong_to() -> None:
    gate = Gate()
    gate.hear(tone(1), silence(1), tone(1), silence(1))
    ends = [e.command for e in gate.effects if isinstance(e, Submit)]
    assert [c.utterance_id for c in ends if isinstance(c, FinishUtterance)] == [1, 2]
    assert [c.utterance_id for c in ends if isinstance(c, PauseUtterance)] == [1, 2]
