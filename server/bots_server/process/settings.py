"""Settings of the server: flags, `BOTS_*` variables, defaults, in this order.

`settings()` is the only reader of the environment and the command line.
"""

import os
import re
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from bots_server.process.address import is_local, is_unix
from bots_server.store import DEFAULT_QUOTAS, HISTORY_BYTES, Usage

PREFIX = "BOTS_"
# Variables of the client and its command line, which may be in the environment of a server too, but for those of its
# token: a server that ignored them might serve without tokens where they were meant.
CLIENT_VARIABLES = frozenset(
    f"{PREFIX}{name}" for name in ("SERVER", "TLS", "CA_FILE", "CERT_FILE", "KEY_FILE", "TIMEOUT", "JOB", "INCARNATION")
)
CLIENT_TOKEN_VARIABLES = frozenset((f"{PREFIX}TOKEN", f"{PREFIX}TOKEN_FILE"))


class Settings(BaseSettings):
    """BOTS as a service: Bayesian online task selection over gRPC. With no --redis it starts a private Valkey.

    Other commands: `bots-server token create`, `bots-server fsck`, `bots-server --version`.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        cli_prog_name="bots-server",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        frozen=True,
    )

    host: str = Field("127.0.0.1", description="address to listen on: a name, IPv4, IPv6 or `unix:/path`")
    port: int = Field(50051, ge=0, le=65535, description="port to listen on; 0 picks a free one and prints it")
    processes: int = Field(1, ge=1, le=64, description="worker processes that share the port")
    threads: int = Field(32, ge=1, le=1024, description="short calls that a process serves at once")
    max_calls_per_caller: int = Field(
        16, ge=2, le=1024, description="short calls of one identity (or connection) at once; one or two are in progress"
    )
    max_long_calls: int = Field(
        16, ge=1, le=1000, description="WatchRun, GetPosteriors and CreateDataset calls that a process serves at once"
    )
    max_long_calls_per_caller: int = Field(8, ge=1, le=1000, description="long calls of one identity (or host) at once")
    max_call_seconds: float = Field(3600.0, gt=0, description="time after which a long call is ended")
    max_idle_seconds: float = Field(
        30.0, gt=0, description="time that a call waits for its caller to send a request or chunk, or to read an answer"
    )
    connection_age_seconds: float = Field(
        300.0, gt=0, description="age at which a connection is closed, so that running clients find added servers"
    )
    max_memory_bytes: int = Field(
        2 * 2**30, ge=2**20, description="memory for the runs and datasets that a process holds, loads and takes in"
    )
    max_lease_seconds: float = Field(3600.0, gt=0, le=86_400, description="longest lease that a selection may ask for")
    replica_idle_seconds: float = Field(3600.0, gt=0, description="a run that was not used for this time is dropped")

    quota_datasets: int = Field(DEFAULT_QUOTAS.datasets, ge=0, description="datasets of one identity")
    quota_tasks: int = Field(DEFAULT_QUOTAS.tasks, ge=0, description="tasks in the datasets of one identity")
    quota_runs: int = Field(DEFAULT_QUOTAS.runs, ge=0, description="runs of one identity")
    quota_checkpoints: int = Field(DEFAULT_QUOTAS.checkpoints, ge=0, description="checkpoints of one identity's runs")
    quota_bytes: int = Field(DEFAULT_QUOTAS.bytes, ge=0, description="bytes of one identity's datasets and runs")
    history_bytes: int = Field(
        HISTORY_BYTES, ge=2**16, description="bytes of a run's history behind its newest snapshot; as many of answers"
    )

    redis: SecretStr | None = Field(
        None,
        description="redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL; absent: a private one",
    )
    redis_file: Path | None = Field(None, description="file with that URL, which keeps its password out of `ps`")
    redis_timeout_seconds: float = Field(2.0, gt=0, le=60, description="timeout of a Redis command")
    key_prefix: str = Field(
        "", max_length=64, pattern=r"^[\w.:/-]*$", description="prefix of every key, for services that share a Redis"
    )
    data_dir: Path = Field(Path("bots-data"), description="directory of the private Valkey's append-only file")
    durability: Literal["auto", "memory", "fsync", "replica"] = Field(
        "auto", description="durability of an acknowledged report; auto: the best that the Redis in use has"
    )
    durability_replicas: int = Field(1, ge=1, le=10, description="replicas that have a report at durability replica")

    metrics_host: str = Field("127.0.0.1", description="address of /metrics and /healthz")
    metrics_port: int | None = Field(None, ge=0, le=65535, description="their port; absent: none; 0 picks a free one")
    log_format: Literal["text", "json"] = Field("text", description="form of the log lines")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is logged")

    tokens_file: Path | None = Field(None, description="callers and their hashed tokens; absent: all may do everything")
    tls_cert: Path | None = Field(None, description="PEM file of the server's certificate chain")
    tls_key: Path | None = Field(None, description="PEM file of its private key")
    tls_client_ca: Path | None = Field(None, description="PEM file of the authorities of client certificates")
    insecure: bool = Field(False, description="listen beyond this machine without TLS or without tokens")

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("BOTS_TLS_CERT and BOTS_TLS_KEY go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("BOTS_TLS_CLIENT_CA needs BOTS_TLS_CERT and BOTS_TLS_KEY")
        if self.redis is not None and self.redis_file is not None:
            raise ValueError("BOTS_REDIS and BOTS_REDIS_FILE must not both be set")
        if self.processes > 1 and is_unix(self.host):
            raise ValueError("BOTS_PROCESSES: must be 1 on a unix socket")
        if self.open_to_others and self.lacking and not self.insecure:
            raise ValueError(
                f"BOTS_HOST, BOTS_METRICS_HOST: without {self.lacking} they must be addresses of this machine only; "
                "--insecure allows all"
            )
        if self.open_to_others and not self.model_fields_set & {"redis", "redis_file", "data_dir"}:
            raise ValueError("BOTS_REDIS: must be set, or BOTS_DATA_DIR for a private Valkey, to serve other machines")
        return self

    @property
    def quotas(self) -> Usage:
        """Returns the quotas of one identity."""
        return Usage(**{field.name: getattr(self, f"quota_{field.name}") for field in fields(Usage)})

    def redis_url(self) -> str | None:
        """Returns the URL of the Redis that is given, by itself or in a file; None: a private one is to be started."""
        if self.redis_file is None:
            return None if self.redis is None else self.redis.get_secret_value()
        try:
            return self.redis_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"redis_file = '{self.redis_file}': {error}") from error

    @property
    def open_to_others(self) -> bool:
        """Whether other machines reach the server or its metrics."""
        return not (is_local(self.host) and (self.metrics_port is None or is_local(self.metrics_host)))

    @property
    def lacking(self) -> str:
        """What an open server lacks; empty: nothing."""
        tls = "" if self.tls_cert else "TLS (--tls-cert, --tls-key)"
        callers = "" if self.tokens_file or self.tls_client_ca else "tokens (--tokens-file)"
        return " and ".join(filter(None, (tls, callers)))


def settings(arguments: list[str], *, serving: bool = True) -> Settings:
    """Returns the settings of this process. Exits with the name and the rule if a value is wrong or a name unknown.

    serving: the process is a server, so variables of a client's token are refused
    """
    flags = [*map(_flag, Settings.model_fields), "--no-insecure", "--help"]
    given = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    variables = {name for name, value in os.environ.items() if name.startswith(PREFIX) and value} - CLIENT_VARIABLES
    if not serving:
        variables -= CLIENT_TOKEN_VARIABLES
    complaints = _unknown(given, flags) + _unknown(sorted(variables), [*map(_variable, Settings.model_fields)])
    if not complaints:
        try:
            return CliApp.run(Settings, cli_args=arguments)
        except ValidationError as error:
            complaints = [_complaint(detail["loc"], detail["msg"], detail["input"]) for detail in error.errors()]
    raise SystemExit("\n".join(f"bots-server: {complaint}" for complaint in complaints))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _unknown(given: list[str], known: list[str]) -> list[str]:
    """Returns a complaint for each name that is not known, with the nearest that is."""
    unknown = [name for name in given if name not in known]
    nearest = [get_close_matches(name, known, n=1, cutoff=0.0)[0] for name in unknown]
    return [f"{name}: is not a setting; the nearest is {near}" for name, near in zip(unknown, nearest, strict=True)]


def _complaint(location: tuple[int | str, ...], message: str, value: object) -> str:
    if not location:  # of several settings, by `_consistent`; the value would be all settings
        return message.removeprefix("Value error, ")
    name = str(location[0])
    rule = re.sub(r"^\w+ should ", "must ", message)
    return f"{_variable(name)} ({_flag(name)}): got {value!r}, {rule}"
