import pytest

from engine.audio.units import Samples
from engine.bench.wer_hearing import SPEECH, WHOLE, Ears, Heard, Hearing, Spoken
from engine.bench.wer_sets import Audio
from engine.errors import StepError
from tests.support.fake_engine import engine_of
from tests.support.fake_runner import Rig, say, silence


def whole(samples: Audio) -> Spoken:
    return samples, [(Samples(0), Samples(len(samples)))], "en", "clip.wav"


def test_offline_everything_is_decoded_once() -> None:
    rig = Rig()
    heard = Ears(engine_of(rig), Hearing()).offline([whole(say("red", "green")), whole(say())])
    assert heard == [Heard("red green."), Heard()]
    assert (rig.metrics.finals, rig.metrics.partials) == (1, 0)


@pytest.mark.parametrize(("interval_ms", "partials"), [(400, 6), (1000, 3)])
def test_windows_grow_by_the_interval(interval_ms: int, partials: int) -> None:
    rig = Rig()  # 3.15 s, and the first partial after 0.8 s
    ears = Ears(engine_of(rig), Hearing(interval_ms=interval_ms))
    ears.live([whole(say(*["red"] * 9))])
    assert rig.metrics.partials == partials


def test_partials_stay_as_often_as_was_asked_on_a_slow_machine() -> None:
    rig = Rig()
    ears = Ears(engine_of(rig, step_s=5.0), Hearing())
    ears.live([whole(say(*["red"] * 9)) for _ in range(2)])
    assert rig.metrics.partials == 12


def test_words_that_change_are_counted_and_the_last_partial_is_kept() -> None:
    # 1.05 s: one partial, of 0.8 s, in which the third word is cut off.
    (heard,) = Ears(engine_of(Rig()), Hearing()).live([whole(say("red", "green", "blue"))])
    assert heard == Heard("red green blue.", "red green uh.", partial_words=3, changed_words=1)


def test_the_regions_of_a_recording_are_heard_apart_and_joined_in_order() -> None:
    samples = say("red", "green", "blue")
    regions = [(Samples(0), Samples(5600)), (Samples(5600), Samples(11200))]
    ears = Ears(engine_of(Rig()), Hearing())
    for hear in (ears.offline, ears.live):
        one, other = hear([(samples, regions, "en", "one"), (samples, [], "en", "none")])
        assert (one.text, other.text) == ("red. green.", "")


def test_recordings_are_divided_as_was_asked() -> None:
    samples = silence(100)
    everything, nothing = [(Samples(0), Samples(100))], list[tuple[Samples, Samples]]()
    for hearing, ways in (
        (Hearing(), {WHOLE: everything}),
        (Hearing(find_speech=lambda _: nothing), {WHOLE: everything, SPEECH: nothing}),
        (Hearing(whole=False, find_speech=lambda _: nothing), {SPEECH: nothing}),
    ):
        assert Ears(engine_of(Rig()), hearing).divided(samples) == ways


def test_more_utterances_than_slots_are_heard_one_group_after_the_other() -> None:
    rig = Rig(num_slots=2)
    rig.metrics.slots = 2
    heard = Ears(engine_of(rig), Hearing()).live([whole(say("red", "green", "blue"))] * 5)
    assert {it.text for it in heard} == {"red green blue."}
    assert rig.metrics.partials == 5


def test_an_utterance_that_fails_ends_it_by_name() -> None:
    rig = Rig()
    rig.runner.fail_next = True
    with pytest.raises(StepError, match=r"clip\.wav: RuntimeError: told to fail"):
        Ears(engine_of(rig), Hearing()).offline([whole(say("red"))])
