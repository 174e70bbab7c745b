"""Settings of the server: flags, `BOTS_*` variables, defaults, in this order.

`settings()` is the only reader of the environment and the command line.
"""

from dataclasses import fields
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from bots_server.store import DEFAULT_QUOTAS, HISTORY_BYTES, Usage

PREFIX = "BOTS_"


class Settings(BaseSettings):
    """BOTS as a service: Bayesian online task selection over gRPC. With no --redis it starts a private Valkey."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        cli_prog_name="bots-server",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        frozen=True,
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(50051, ge=0, le=65535, description="port to listen on; 0 picks a free one and prints it")
    processes: int = Field(1, ge=1, le=64, description="worker processes that share the port")
    threads: int = Field(32, ge=1, le=1024, description="short calls that a process serves at once")
    max_long_calls: int = Field(
        16, ge=1, le=1000, description="WatchRun, GetPosteriors and CreateDataset calls that a process serves at once"
    )
    max_long_calls_per_caller: int = Field(
        8, ge=1, le=1000, description="the same for one identity; for one host if callers have no identity"
    )
    max_call_seconds: float = Field(3600.0, gt=0, description="time after which a long call is ended")
    max_idle_seconds: float = Field(
        30.0, gt=0, description="time that a long call waits for its caller's next chunk, or for it to take an answer"
    )
    connection_age_seconds: float = Field(
        300.0, gt=0, description="age at which a connection is closed, so that running clients find added servers"
    )
    max_memory_bytes: int = Field(
        2 * 2**30, ge=2**20, description="memory for the runs and datasets that a process holds, loads and takes in"
    )
    replica_idle_seconds: float = Field(3600.0, gt=0, description="a run that was not used for this time is dropped")

    quota_datasets: int = Field(DEFAULT_QUOTAS.datasets, ge=0, description="datasets of one identity")
    quota_tasks: int = Field(DEFAULT_QUOTAS.tasks, ge=0, description="tasks in the datasets of one identity")
    quota_runs: int = Field(DEFAULT_QUOTAS.runs, ge=0, description="runs of one identity")
    quota_checkpoints: int = Field(DEFAULT_QUOTAS.checkpoints, ge=0, description="checkpoints of one identity's runs")
    quota_bytes: int = Field(
        DEFAULT_QUOTAS.bytes, ge=0, description="bytes in Redis of one identity's datasets and runs"
    )
    history_bytes: int = Field(
        HISTORY_BYTES,
        ge=2**16,
        description="bytes of a run's history behind its newest snapshot; and again of answers to selections",
    )

    redis: SecretStr | None = Field(
        None,
        description="redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL; absent: a private one",
    )
    redis_timeout_seconds: float = Field(2.0, gt=0, le=60, description="timeout of a Redis command")
    data_dir: Path = Field(Path("bots-data"), description="directory of the private Valkey's append-only file")
    durability: Literal["auto", "memory", "fsync", "replica"] = Field(
        "auto", description="durability of an acknowledged report; auto: the best that the Redis in use has"
    )
    durability_replicas: int = Field(
        1, ge=1, le=10, description="replicas that must have a report at durability replica"
    )

    metrics_host: str = Field("127.0.0.1", description="address of /metrics")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port of /metrics; absent: none; 0 picks a free one"
    )
    log_format: Literal["text", "json"] = Field("text", description="form of the log lines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="minimum severity that is logged"
    )

    token_file: Path | None = Field(None, description="file with the token that callers must send; absent: none")
    tls_cert: Path | None = Field(None, description="PEM file of the server's certificate chain")
    tls_key: Path | None = Field(None, description="PEM file of its private key")

    @model_validator(mode="after")
    def _both_or_neither(self) -> "Settings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("BOTS_TLS_CERT and BOTS_TLS_KEY go together")
        return self

    @property
    def quotas(self) -> Usage:
        """Returns the quotas of one identity."""
        names = (field.name for field in fields(Usage))
        return Usage(**{name: getattr(self, f"quota_{name}") for name in names})


def settings(arguments: list[str]) -> Settings:
    """Returns the settings of this process. Exits with the variable's name and the rule if a value is wrong."""
    try:
        return CliApp.run(Settings, cli_args=arguments)
    except ValidationError as error:
        raise SystemExit("\n".join(_complaint(detail["loc"], detail["msg"]) for detail in error.errors())) from None


def _complaint(location: tuple[int | str, ...], message: str) -> str:
    if not location:
        return f"bots-server: {message}"
    name = str(location[0])
    return f"bots-server: {PREFIX}{name.upper()} (--{name.replace('_', '-')}): {message}"
