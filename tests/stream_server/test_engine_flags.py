import argparse

import pytest

from engine.config import EngineConfig
from engine.errors import ConfigError
from stream_server.engine_flags import (
    add_device_arguments,
    add_engine_arguments,
    engine_config_of,
)


def parse(*argv: str) -> EngineConfig:
    parser = argparse.ArgumentParser()
    add_engine_arguments(parser)
    return engine_config_of(parser.parse_args(argv))


def test_without_flags_the_engine_is_the_default_one() -> None:
    assert parse() == EngineConfig()


def test_every_flag_arrives() -> None:
    asked_for = parse(
        *("--model", "base.en", "--device", "cuda", "--dtype", "float32", "--threads", "3"),
        *("--attention", "eager", "--cuda-graphs", "off", "--weights", "int4"),
        *("--kv-dtype", "fp8"),
    )
    assert asked_for == EngineConfig(
        model="base.en",
        device="cuda",
        dtype="float32",
        threads=3,
        attention="eager",
        cuda_graphs="off",
        weights="int4",
        kv_dtype="fp8",
    )


def test_device_and_format_can_be_asked_for_alone() -> None:
    parser = argparse.ArgumentParser()
    add_device_arguments(parser)
    assert vars(parser.parse_args(["--device", "cpu"])) == {"device": "cpu", "dtype": "auto"}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--device", "tpu"),
        ("--dtype", "int3"),
        ("--attention", "paged"),
        ("--cuda-graphs", "yes"),
        ("--weights", "int3"),
        ("--kv-dtype", "int8"),
    ],
)
def test_a_word_that_is_not_accepted_is_refused_with_those_that_are(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(flag, value)
    assert ended.value.code == 2
    refusal = capsys.readouterr().err
    assert value in refusal
    assert "auto" in refusal


def test_a_number_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="threads: got -1"):
        parse("--threads", "-1")


def test_a_back_end_that_a_processor_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="attention: got 'triton', accepted on a CPU"):
        parse("--device", "cpu", "--attention", "triton")
