from clients.latency import LatencyMeter
from stream_server.protocol import Final, SpeechStopped


def final(start: float, end: float) -> Final:
    return Final(
        segment=0,
        start=start,
        end=end,
        text="hello",
        language="en",
        language_probability=1.0,
        confidence=1.0,
        no_speech_prob=0.0,
    )


def meter_of_ten_seconds() -> LatencyMeter:
    """Audio in chunks of 100 ms, each sent when it was complete, by a clock that began at 50."""
    meter = LatencyMeter()
    for k in range(1, 101):
        meter.sent(k / 10, 50 + k / 10)
    return meter


def test_a_final_is_timed_from_the_sending_of_its_last_speech() -> None:
    meter = meter_of_ten_seconds()
    meter.received(SpeechStopped(at=2.05), 52.6)
    meter.received(final(0.5, 2.05), 52.8)
    assert [round(latency, 6) for latency in meter.latencies_s] == [0.7]


def test_a_segment_cut_out_of_longer_speech_is_not_timed_but_the_last_one_is() -> None:
    meter = meter_of_ten_seconds()
    meter.received(final(0.0, 4.0), 54.5)
    meter.received(SpeechStopped(at=6.0), 56.5)
    meter.received(final(4.0, 6.0), 57.0)
    assert meter.latencies_s == [1.0]


def test_finals_that_come_late_find_the_stop_of_their_own_speech() -> None:
    meter = meter_of_ten_seconds()
    meter.received(SpeechStopped(at=2.0), 52.5)
    meter.received(SpeechStopped(at=5.0), 55.5)
    meter.received(final(1.0, 2.02), 56.0)
    meter.received(final(3.0, 5.2), 56.5)
    assert meter.latencies_s == [4.0, 1.5]
    assert meter.median_s == 2.75


def test_the_median_before_any_final_is_unknown() -> None:
    assert LatencyMeter().median_s is None


def test_when_audio_was_sent_is_known_for_every_place_up_to_the_newest() -> None:
    meter = meter_of_ten_seconds()
    assert [meter.when_sent(audio_s) for audio_s in (0.0, 2.0, 2.05, 99.0)] == [
        50.1,
        52.0,
        52.1,
        60.0,
    ]
