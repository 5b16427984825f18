"""Every setting of the server, each default written once with its reason.

A flag wins over an environment variable `STARLING_…`, that over the TOML file named by
`--config`, that over the default. What the engine's settings mean is `engine.config`'s to say.
"""

import argparse
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliImplicitFlag,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from engine.config import (
    Attention,
    Device,
    Dtype,
    EngineConfig,
    KvDtype,
    PartialContext,
    Toggle,
    Weights,
)
from engine.errors import ConfigError
from engine.events import Context
from stream_server.log_format import LogFormat
from stream_server.protocol import DEFAULT_PORT, MAX_CHUNK_BYTES

ENV_PREFIX: Final = "STARLING_"
_ENGINE: Final = EngineConfig()
LogLevel = Literal["debug", "info", "warning", "error"]


class ServerConfig(BaseSettings):
    """Serve live speech recognition over websockets.

    Every flag can also be a STARLING_… environment variable (lists separated by commas) or a
    line of the TOML file given with --config; a flag wins over a variable, that over the file.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        extra="forbid",
        frozen=True,
        cli_prog_name="starling serve",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    config: Path | None = Field(default=None, description="TOML file with any of these settings")

    # Only this machine: speech is private, and a microphone page needs TLS on any other.
    host: str = Field(
        default="127.0.0.1", description="address to listen on; 0.0.0.0 for all networks"
    )
    port: int = Field(
        default=DEFAULT_PORT, ge=0, le=65535, description="TCP port; 0 takes a free one"
    )
    tls_cert: Path | None = Field(
        default=None, description="certificate chain (PEM): serve wss and https"
    )
    tls_key: Path | None = Field(default=None, description="private key (PEM) of --tls-cert")

    api_key: Annotated[list[str], NoDecode] = Field(
        default=[],
        repr=False,
        description="admit only clients with this key; may be given several times",
    )
    api_key_file: Path | None = Field(default=None, description="file of such keys, one to a line")
    allowed_origin: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="also admit pages of this origin (https://example.org), or * for all",
    )
    # What two CPU cores carry with the embedded model (DESIGN's own target); raise it on a GPU.
    max_sessions: int = Field(
        default=64, ge=1, description="connections at once; more are answered 503"
    )
    # One audio message of the largest format, and a third for whatever encloses it.
    max_message_bytes: int = Field(
        default=MAX_CHUNK_BYTES * 4 // 3, ge=1024, description="longest websocket message accepted"
    )
    # Longer than any pause in dictation; a client that wants to wait longer sends keepalive.
    idle_timeout_s: float = Field(
        default=60, gt=0, description="end a session that sends nothing so long"
    )
    # Finals take well under a second; orchestrators kill after 30 s.
    drain_timeout_s: float = Field(
        default=10, ge=0, description="time for the last finals at shutdown"
    )
    log_level: LogLevel = Field(default="info", description="least severe messages to log")
    log_format: LogFormat = Field(
        default="text", description="lines for people, or one JSON object per line"
    )
    # On, and without a key, as health is: sums over all sessions, and only this machine is
    # listened to by default. Who serves the world and not its figures says --no-metrics.
    metrics: CliImplicitFlag[bool] = Field(
        default=True, description="/metrics for Prometheus, open to all who reach the port"
    )

    model: str = Field(
        default=_ENGINE.model, description="Whisper checkpoint: directory, hub id or auto"
    )
    device: Device = Field(default=_ENGINE.device, description="where the model runs")
    dtype: Dtype = Field(default=_ENGINE.dtype, description="what the model computes in")
    attention: Attention = Field(
        default=_ENGINE.attention, description="attention back end on a GPU; auto measures them"
    )
    cuda_graphs: Toggle = Field(
        default=_ENGINE.cuda_graphs, description="CUDA graphs of the steps; auto is on"
    )
    weights: Weights = Field(
        default=_ENGINE.weights, description="format of the weights; auto is that of --dtype"
    )
    kv_dtype: KvDtype = Field(
        default=_ENGINE.kv_dtype, description="format of keys and values; auto chooses"
    )
    context: Context = Field(
        default=_ENGINE.context, description="how far the encoder's input is padded"
    )
    partial_context: PartialContext = Field(
        default=_ENGINE.partial_context,
        description="what is encoded of a growing window: all of it, or what is new",
    )
    num_slots: int = Field(
        default=_ENGINE.num_slots, ge=0, description="utterances at once; 0 chooses"
    )
    threads: int = Field(default=_ENGINE.threads, ge=0, description="CPU threads; 0 chooses")
    cache_dir: str | None = Field(default=_ENGINE.cache_dir, description="where downloads are kept")

    @classmethod
    def from_args(cls, argv: Sequence[str]) -> Self:
        """The settings that flags, variables and the file give together.

        Raises ConfigError with one line per setting that is wrong. A flag that does not exist,
        and `--help`, end the process as argparse does.
        """
        file = _config_file(argv)
        values: dict[str, Any] = {"_cli_parse_args": list(argv)}
        if file is not None:
            values["config"] = file
        try:
            return cls(**values)
        except ValidationError as exc:
            raise ConfigError("\n".join(_sentence(error) for error in exc.errors())) from exc
        except (OSError, tomllib.TOMLDecodeError) as exc:
            raise ConfigError(f"--config {file}: {exc}") from exc

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Most important first; the command line is put before these by pydantic-settings."""
        file = init_settings().get("config")
        if file is None:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)

    @field_validator("api_key", "allowed_origin", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if not parts:
            # An unset shell variable must not open a server that was meant to be closed.
            raise ValueError("got an empty value, takes at least one")
        return parts

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key: got one, takes both or neither")
        return self

    def read_api_keys(self) -> tuple[str, ...]:
        """Every key that admits a client; none means that all are admitted.

        Raises ConfigError where the key file cannot be read or holds no key: a server that was
        meant to be closed must not come up open.
        """
        keys = list(self.api_key)
        if self.api_key_file is not None:
            try:
                lines = self.api_key_file.read_text().splitlines()
            except (OSError, UnicodeDecodeError) as exc:
                raise ConfigError(f"--api-key-file {self.api_key_file}: {exc}") from exc
            found = [line.strip() for line in lines if line.strip()]
            if not found:
                raise ConfigError(f"--api-key-file {self.api_key_file}: holds no key")
            keys += found
        return tuple(keys)


def engine_config(config: ServerConfig) -> EngineConfig:
    """The engine's part. Raises ConfigError for what this machine cannot do."""
    return EngineConfig(
        model=config.model,
        device=config.device,
        dtype=config.dtype,
        attention=config.attention,
        cuda_graphs=config.cuda_graphs,
        weights=config.weights,
        kv_dtype=config.kv_dtype,
        context=config.context,
        partial_context=config.partial_context,
        num_slots=config.num_slots,
        threads=config.threads,
        cache_dir=config.cache_dir,
    )


def _config_file(argv: Sequence[str]) -> Path | None:
    """The TOML file, which has to be known before the settings can be put together."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", default=os.environ.get(f"{ENV_PREFIX}CONFIG"))
    file = parser.parse_known_args(argv)[0].config
    if not file:
        return None
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"--config {path}: there is no such file")
    return path


def _sentence(error: ErrorDetails) -> str:
    """One wrong setting: its name, what it got, what it takes."""
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0])
    flag = f"--{name.replace('_', '-')} ({ENV_PREFIX}{name.upper()})"
    reason = error["msg"].removeprefix("Value error, ")
    got = "" if name == "api_key" else f"got {error['input']!r}; "
    return f"{flag}: {got}{reason[0].lower()}{reason[1:]}"
