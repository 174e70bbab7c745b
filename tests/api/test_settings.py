"""Settings: what is unknown, empty or unsafe stops the start, before anything starts."""

import importlib
import re
from pathlib import Path

import pytest

from bots_server.process.settings import CLIENT_TOKEN_VARIABLES, CLIENT_VARIABLES, Settings, settings

TLS = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"]
OPEN = ["--host", "0.0.0.0"]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No BOTS_ variable of the caller."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BOTS_{name.upper()}", raising=False)
    for name in CLIENT_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def refusal(*arguments: str) -> str:
    """Returns what the server says instead of starting."""
    with pytest.raises(SystemExit) as stopped:
        settings(list(arguments))
    return str(stopped.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("BOTS_TOKEN", "BOTS_TOKENS_FILE"),
        ("BOTS_TOKEN_FILE", "BOTS_TOKENS_FILE"),
        ("BOTS_REDIS_URL", "BOTS_REDIS"),
        ("BOTS_DATADIR", "BOTS_DATA_DIR"),
        ("BOTS_TLS_CA", "BOTS_TLS_CERT"),
    ],
)
def test_unknown_variable_stops_the_start_and_names_the_nearest(
    name: str, nearest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A BOTS_ variable that is no setting is refused, with the nearest setting; its value is not shown."""
    monkeypatch.setenv(name, "s3cret")
    assert refusal() == f"bots-server: {name}: is not a setting; the nearest is {nearest}"


def test_unknown_flag_stops_the_start_and_names_the_nearest() -> None:
    """A flag that is no setting is refused, with the nearest flag."""
    said = refusal("--redis-url=redis://host", "--protz", "4")
    assert said.splitlines() == [
        "bots-server: --redis-url: is not a setting; the nearest is --redis-file",
        "bots-server: --protz: is not a setting; the nearest is --port",
    ]


def test_variables_of_the_client_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable of the command line but its token may be in the environment of a server, and all of them in that
    of `bots-server fsck`."""
    connection = Path(str(importlib.import_module("bots.cli.connection").__file__)).read_text()
    named = set(re.findall(r'envvar="(\w+)"', connection)) | {"BOTS_INCARNATION"}
    assert named == CLIENT_VARIABLES | CLIENT_TOKEN_VARIABLES
    for name in CLIENT_VARIABLES:
        monkeypatch.setenv(name, "x")
    assert settings([]).port == 50051
    for name in CLIENT_TOKEN_VARIABLES:
        monkeypatch.setenv(name, "x")
    assert settings([], serving=False).port == 50051


def test_empty_variable_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable, as Compose makes it of ${X:-}, leaves the default."""
    for name in (*Settings.model_fields, "unknown"):
        monkeypatch.setenv(f"BOTS_{name.upper()}", "")
    assert settings([]) == Settings.model_construct(**{n: f.default for n, f in Settings.model_fields.items()})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "[2001:db8::1]", "bots.example"])
def test_only_this_machine_is_served_without_tls_and_tokens(host: str) -> None:
    """An address that others reach needs TLS and tokens (or client certificates), or --insecure."""
    data = ["--data-dir", "x"]
    assert "--insecure" in refusal("--host", host, *data)
    assert "without tokens" in refusal("--host", host, *data, *TLS)
    assert "without TLS" in refusal("--host", host, *data, "--tokens-file", "t")
    assert "without TLS" in refusal("--metrics-host", host, "--metrics-port", "9090", *data, "--tokens-file", "t")
    for enough in ([*TLS, "--tokens-file", "t"], [*TLS, "--tls-client-ca", "ca.pem"], ["--insecure"]):
        assert settings(["--host", host, *data, *enough]).open_to_others


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.50.51", "::1", "[::1]", "unix:/run/bots.sock"])
def test_this_machine_is_served_without_anything(host: str) -> None:
    """Loopback addresses and unix sockets need neither TLS nor tokens."""
    assert not settings(["--host", host, "--metrics-host", "0.0.0.0"]).open_to_others  # without a metrics port


def test_private_valkey_of_an_open_server_must_be_asked_for() -> None:
    """A server that others reach has its Redis named, or a data directory for a private one."""
    assert "BOTS_REDIS" in refusal(*OPEN, "--insecure")
    for chosen in (["--redis", "redis://r"], ["--redis-file", "f"], ["--data-dir", "/data"]):
        assert settings([*OPEN, "--insecure", *chosen]).open_to_others


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--tls-cert", "c"], "BOTS_TLS_KEY"),
        (["--tls-client-ca", "c"], "BOTS_TLS_CLIENT_CA"),
        (["--redis", "redis://r", "--redis-file", "f"], "BOTS_REDIS_FILE"),
        (["--host", "unix:/x", "--processes", "2"], "BOTS_PROCESSES"),
        (["--key-prefix", "{a}"], "BOTS_KEY_PREFIX"),
        (["--port", "tcp://10.0.0.7:50051"], "BOTS_PORT"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(arguments: list[str], named: str) -> None:
    """Settings that exclude or need each other, and values that break a rule, are refused by name."""
    assert named in refusal(*arguments)
