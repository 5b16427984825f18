import argparse

import pytest

from engine.config import EngineConfig
from engine.errors import ConfigError
from stream_server.engine_flags import (
    add_device_arguments,
    add_engine_arguments,
    add_setting_arguments,
    engine_config_of,
    settings_of,
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
        *("--kv-dtype", "fp8", "--partial-context", "incremental"),
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
        partial_context="incremental",
    )


def test_device_and_format_can_be_asked_for_alone() -> None:
    parser = argparse.ArgumentParser()
    add_device_arguments(parser)
    assert vars(parser.parse_args(["--device", "cpu"])) == {"device": "cpu", "dtype": "auto"}


def test_settings_can_be_asked_for_without_a_model() -> None:
    parser = argparse.ArgumentParser()
    add_setting_arguments(parser)
    assert EngineConfig(**settings_of(parser.parse_args([]))) == EngineConfig()
    args = parser.parse_args(["--kv-dtype", "fp8", "--partial-context", "incremental"])
    asked_for = EngineConfig(kv_dtype="fp8", partial_context="incremental")
    assert EngineConfig(**settings_of(args)) == asked_for


@pytest.mark.parametrize(
    ("flag", "value", "accepted"),
    [
        ("--device", "tpu", "auto"),
        ("--dtype", "int3", "auto"),
        ("--attention", "paged", "auto"),
        ("--cuda-graphs", "yes", "auto"),
        ("--weights", "int3", "auto"),
        ("--kv-dtype", "int8", "auto"),
        ("--partial-context", "full", "trimmed"),
    ],
)
def test_a_word_that_is_not_accepted_is_refused_with_those_that_are(
    flag: str, value: str, accepted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(flag, value)
    assert ended.value.code == 2
    refusal = capsys.readouterr().err
    assert value in refusal
    assert accepted in refusal


def test_a_number_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="threads: got -1"):
        parse("--threads", "-1")


def test_a_back_end_that_a_processor_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="attention: got 'triton', accepted on a CPU"):
        parse("--device", "cpu", "--attention", "triton")
