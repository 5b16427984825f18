from engine.bench.time_box import TimeBox


class Clock:
    def __init__(self) -> None:
        self.reading = 100.0

    def __call__(self) -> float:
        return self.reading


def test_without_a_limit_every_row_is_measured() -> None:
    box = TimeBox()
    assert all(box.admits(str(number)) for number in range(50))
    assert box.left_out == []


def test_a_row_begins_only_where_one_as_long_as_the_longest_would_fit() -> None:
    clock = Clock()
    box = TimeBox(10.0, clock)
    assert box.admits("long")
    clock.reading += 4.0
    assert box.admits("short")
    clock.reading += 1.0
    assert box.admits("another")
    clock.reading += 1.5
    assert not box.admits("too late")
    assert box.left_out == ["too late"]


def test_time_after_a_row_that_was_left_out_is_no_row() -> None:
    clock = Clock()
    box = TimeBox(10.0, clock)
    assert box.admits("first")
    clock.reading += 6.0
    assert not box.admits("second")
    clock.reading += 1.0
    assert not box.admits("third")
    assert box.left_out == ["second", "third"]


def test_the_first_row_is_measured_whatever_the_time() -> None:
    clock = Clock()
    box = TimeBox(1.0, clock)
    clock.reading += 5.0
    assert box.admits("first")
    assert not box.admits("second")


def test_a_row_that_could_not_be_measured_is_named_with_its_reason() -> None:
    box = TimeBox()
    assert box.admits("flash")
    box.leave_out("flash", "no such kernel")
    assert box.left_out == ["flash: no such kernel"]
    assert box.admits("sdpa")
