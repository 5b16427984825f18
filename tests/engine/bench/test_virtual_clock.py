from engine.bench.virtual_clock import VirtualClock


def test_a_virtual_clock_goes_on_with_the_real_one_and_skips() -> None:
    readings = iter((10.0, 11.0, 11.5, 12.0, 30.0, 31.0))
    clock = VirtualClock(lambda: next(readings))
    assert clock() == 10.0
    clock.skip_to(20.0)
    assert clock.skipped == 9.0
    assert clock() == 20.5
    clock.skip_to(15.0)  # is past: nothing to skip
    assert clock.skipped == 9.0
    assert clock() == 39.0
