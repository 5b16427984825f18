"""`starling demo` where it cannot show anything; that it does is shown end to end."""

import argparse

import pytest

from stream_server.demo_command import add_arguments, run


def demo(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(argv))


def test_a_server_that_does_not_start_is_heard_and_ends_the_demo(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert demo("--model", "/no/such/whisper", "--port", "0") == 2
    told = capfd.readouterr()
    assert "Starting a server with the model '/no/such/whisper'" in told.out
    assert "starling serve: model: got '/no/such/whisper'" in told.err
    assert "Streaming" not in told.out


def test_it_needs_no_model_but_the_one_that_comes_with_the_package() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args([]).model == "embedded"
