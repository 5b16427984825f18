from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.errors import ConfigError
from stream_server.config import ServerConfig, engine_config
from stream_server.protocol import MAX_CHUNK_BYTES


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "PORT",
        "HOST",
        "API_KEY",
        "CONFIG",
        "MODEL",
        "MAX_SESSIONS",
        "METRICS",
        "LOG_FORMAT",
        "ATTENTION",
        "CUDA_GRAPHS",
        "WEIGHTS",
        "KV_DTYPE",
        "PARTIAL_CONTEXT",
    ):
        monkeypatch.delenv(f"STARLING_{name}", raising=False)


def test_defaults_serve_this_machine_alone() -> None:
    config = ServerConfig.from_args([])
    assert (config.host, config.port, config.read_api_keys()) == ("127.0.0.1", 8765, ())


def test_a_second_of_the_largest_format_fits_into_a_message() -> None:
    assert ServerConfig.from_args([]).max_message_bytes > MAX_CHUNK_BYTES


def test_flags_win_over_variables_over_the_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "starling.toml"
    file.write_text('host = "::1"\nport = 1\nmax_sessions = 2\n')
    monkeypatch.setenv("STARLING_PORT", "3")
    monkeypatch.setenv("STARLING_MAX_SESSIONS", "4")
    config = ServerConfig.from_args(["--config", str(file), "--max-sessions", "5"])
    assert (config.host, config.port, config.max_sessions) == ("::1", 3, 5)
    assert config.log_level == "info"


def test_metrics_are_shown_unless_somebody_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServerConfig.from_args([]).metrics
    assert not ServerConfig.from_args(["--no-metrics"]).metrics
    monkeypatch.setenv("STARLING_METRICS", "false")
    assert not ServerConfig.from_args([]).metrics
    assert ServerConfig.from_args(["--metrics"]).metrics


def test_the_log_is_for_people_unless_machines_read_it() -> None:
    assert ServerConfig.from_args([]).log_format == "text"
    assert ServerConfig.from_args(["--log-format", "json"]).log_format == "json"
    with pytest.raises(ConfigError, match=r"--log-format .*got 'xml'; .*'text' or 'json'"):
        ServerConfig.from_args(["--log-format", "xml"])


def test_the_file_may_be_named_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "starling.toml"
    file.write_text("port = 7\n")
    monkeypatch.setenv("STARLING_CONFIG", str(file))
    assert ServerConfig.from_args([]).port == 7


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--port", "http"], r"--port \(STARLING_PORT\): got 'http'; input should be a valid int"),
        (["--port", "70000"], r"--port .*: got '?70000'?; input should be less than or equal"),
        (["--device", "tpu"], r"--device .*: got 'tpu'; input should be 'auto', 'cpu' or 'cuda'"),
        (["--tls-cert", "cert.pem"], "--tls-cert and --tls-key: got one, takes both or neither"),
        (["--api-key", ""], r"--api-key \(STARLING_API_KEY\): got an empty value"),
        (["--config", "/no/such/file.toml"], "--config /no/such/file.toml: there is no such file"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_got_and_takes(
    argv: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ServerConfig.from_args(argv)


def test_every_wrong_setting_has_its_own_line() -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig.from_args(["--port", "x", "--max-sessions", "0"])
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("prt = 1\n", "--prt .*not permitted"), ("port =\n", "Invalid value")],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "starling.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        ServerConfig.from_args(["--config", str(file)])


def test_an_unknown_flag_ends_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        ServerConfig.from_args(["--prt", "1"])
    assert "unrecognized arguments: --prt" in capsys.readouterr().err


def test_help_shows_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        ServerConfig.from_args(["--help"])
    shown = capsys.readouterr().out
    for name in ServerConfig.model_fields:
        assert f"--{name.replace('_', '-')}" in shown


def test_keys_come_from_flags_variables_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text("from-file\n\n  indented  \n")
    argv = ["--api-key", "one", "--api-key", "two,three", "--api-key-file", str(file)]
    keys = ServerConfig.from_args(argv).read_api_keys()
    assert keys == ("one", "two", "three", "from-file", "indented")
    monkeypatch.setenv("STARLING_API_KEY", "a,b")
    assert ServerConfig.from_args([]).read_api_keys() == ("a", "b")


def test_a_key_is_never_shown() -> None:
    assert "hidden-key" not in repr(ServerConfig.from_args(["--api-key", "hidden-key"]))


def test_a_key_file_without_keys_does_not_open_the_server(tmp_path: Path) -> None:
    empty = tmp_path / "keys"
    empty.write_text("\n")
    with pytest.raises(ConfigError, match="holds no key"):
        ServerConfig.from_args(["--api-key-file", str(empty)]).read_api_keys()
    with pytest.raises(ConfigError, match="No such file"):
        ServerConfig.from_args(["--api-key-file", str(tmp_path / "none")]).read_api_keys()


def test_the_engine_gets_its_part() -> None:
    argv = ["--model", "tiny", "--device", "cpu", "--dtype", "float32", "--threads", "2"]
    assert engine_config(ServerConfig.from_args(argv)) == EngineConfig(
        model="tiny", device="cpu", dtype="float32", threads=2
    )
    assert engine_config(ServerConfig.from_args([])) == EngineConfig()


def test_what_a_gpu_is_asked_for_reaches_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["--attention", "triton", "--cuda-graphs", "off", "--weights", "int8"]
    monkeypatch.setenv("STARLING_KV_DTYPE", "fp8")
    assert engine_config(ServerConfig.from_args(argv)) == EngineConfig(
        attention="triton", cuda_graphs="off", weights="int8", kv_dtype="fp8"
    )


def test_how_partials_are_encoded_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for = EngineConfig(partial_context="incremental")
    argv = ["--partial-context", "incremental"]
    assert engine_config(ServerConfig.from_args(argv)) == asked_for
    monkeypatch.setenv("STARLING_PARTIAL_CONTEXT", "incremental")
    assert engine_config(ServerConfig.from_args([])) == asked_for


@pytest.mark.parametrize(
    ("flag", "accepted"),
    [
        ("--attention", "'auto', 'flash', 'sdpa', 'triton' or 'eager'"),
        ("--cuda-graphs", "'auto', 'on' or 'off'"),
        ("--weights", "'auto', 'int8' or 'int4'"),
        ("--kv-dtype", "'auto', 'float32', 'bfloat16', 'float16' or 'fp8'"),
        ("--partial-context", "'trimmed' or 'incremental'"),
    ],
)
def test_a_word_that_no_engine_knows_is_refused(flag: str, accepted: str) -> None:
    with pytest.raises(ConfigError, match=rf"{flag} .*got 'int3'; .*{accepted}"):
        ServerConfig.from_args([flag, "int3"])
