from engine.audio.units import Samples, samples_from_ms
from stream_server.lag_notice import LagNotice
from stream_server.protocol import WarningMessage

ASKED = samples_from_ms(400)


def told(notice: LagNotice, *intervals_ms: int) -> list[int]:
    answers = [notice.receive(samples_from_ms(interval_ms)) for interval_ms in intervals_ms]
    return [answer.interim_interval_ms for answer in answers if answer is not None]


def test_nothing_is_said_while_partials_come_as_asked() -> None:
    assert told(LagNotice(ASKED), 400, 400, 400) == []


def test_an_interval_that_grows_is_told_once_it_can_be_seen() -> None:
    assert told(LagNotice(ASKED), 450, 500, 590, 600, 650, 899, 900, 1600) == [600, 900, 1600]


def test_an_interval_that_shrinks_is_told_and_the_return_always() -> None:
    notice = LagNotice(ASKED)
    assert told(notice, 1600, 1200, 1000, 800, 500, 450) == [1600, 1000, 500]
    assert told(notice, 400) == [400]
    assert told(notice, 400) == []


def test_the_warning_says_whether_the_server_is_behind_or_has_caught_up() -> None:
    notice = LagNotice(ASKED)
    assert notice.receive(samples_from_ms(800)) == WarningMessage(
        code="lagging",
        message="the server is behind; partials now come every 800 ms",
        interim_interval_ms=800,
    )
    assert notice.receive(ASKED) == WarningMessage(
        code="lagging",
        message="the server has caught up; partials now come every 400 ms",
        interim_interval_ms=400,
    )


def test_an_interval_is_told_to_the_millisecond() -> None:
    notice = LagNotice(ASKED)
    answer = notice.receive(Samples(16_007))
    assert answer is not None
    assert answer.interim_interval_ms == 1000
