import pytest

from engine.audio.units import SAMPLE_RATE
from engine.bench.session_listener import Heard, Listener
from engine.events import UtteranceFailed, UtteranceFinished, UtteranceId
from tests.support.engine_events import updated


def test_a_partial_ages_until_the_next_comes_or_speech_ends() -> None:
    heard = Heard(start_s=10.0, end_s=13.0, partials=[(11.0, 10.8), (11.5, 10.6), (14.0, 13.0)])
    ages = list(heard.partial_ages())
    # Since speech began; since the first one's audio; and, as the second showed less, still.
    assert [reading for reading, _ in ages] == [11.0, 11.5, 13.0]
    assert [age for _, age in ages] == pytest.approx([1.0, 0.7, 2.2])


def test_speech_without_a_partial_is_as_old_as_it_is_long() -> None:
    assert list(Heard(start_s=1.0, end_s=4.0).partial_ages()) == [(4.0, 3.0)]


def test_a_listener_notes_when_partials_and_finals_come() -> None:
    readings = iter((101.5, 103.0))
    listener = Listener(lambda: next(readings))
    done, lost = Heard(100.0, 102.0), Heard(100.0, 102.0)
    heard = {UtteranceId(1): done, UtteranceId(2): lost}
    listener.listen(heard, set(heard), origin_s=100.0)
    listener(updated(1, "", end=SAMPLE_RATE))
    listener(updated(9, "", end=SAMPLE_RATE))  # of another level
    assert listener.awaited == {1, 2}
    listener(UtteranceFinished(UtteranceId(1)))
    listener(UtteranceFailed(UtteranceId(2), "out of luck"))
    assert done.partials == [(101.5, 101.0)]
    assert (done.final_s, done.failed) == (103.0, False)
    assert (lost.final_s, lost.failed) == (None, True)
    assert listener.awaited == set()
