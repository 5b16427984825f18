import pytest

from training.progress import progress_bar


def test_nothing_is_drawn_where_output_is_captured(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("work", 3, done=1) as bar:
        bar.advance(note="first")
        bar.reach(3, "all")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
