"""`bots doctor`: is the service there, how fast does it answer, what stands between, and what is at risk."""

from __future__ import annotations

import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version

import google.protobuf
import grpc
import typer

import bots
from bots.cli import options
from bots.cli.connection import client_of, connection_of
from bots.cli.console import Cell, show_json, show_one, warn
from bots.target import PROXIES

CALLS = 5
CLOCK_SECONDS = 5.0  # a larger difference of clocks is worth a warning


def doctor(context: typer.Context, as_json: options.Json = False) -> None:
    """Checks the way to the service, and says what was found. Fails if the service does not answer."""
    found: dict[str, Cell] = {
        "client": _version("bots-client"),
        "python": f"{platform.python_version()}, grpcio {grpc.__version__}, protobuf {google.protobuf.__version__}",
        "server": ",".join(client_of(context).session.channel.target.addresses),
        "encrypted": connection_of(context).tls is not None,
        "proxy": _proxy(connection_of(context).proxy),
        "fork support": os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "default"),
    }
    failure: bots.BotsError | None = None
    warnings: list[str] = []
    try:
        found |= _asked(client_of(context))
        told, warnings = _told(client_of(context))
        found |= told
    except bots.BotsError as error:
        failure = error
    if as_json:
        answer = {"answer": "no" if failure else "yes", "error": str(failure) if failure else None}
        show_json(found | answer | {"warnings": warnings})
    else:
        show_one([*found.items(), ("answer", "no" if failure else "yes")])
        for warning in warnings:
            warn(warning)
    if failure is not None:
        raise failure


def _asked(client: bots.Client) -> dict[str, Cell]:
    began = time.monotonic()
    datasets = sum(1 for _ in client.list_datasets())
    connected = time.monotonic() - began
    seconds = []
    for _ in range(CALLS):
        began = time.monotonic()
        next(client.list_datasets(), None)
        seconds.append(time.monotonic() - began)
    return {
        "first call": f"{1e3 * connected:.1f} ms, with connecting",
        "call": f"{1e3 * statistics.median(seconds):.1f} ms, median of {CALLS}",
        "datasets": datasets,
    }


def _told(client: bots.Client) -> tuple[dict[str, Cell], list[str]]:
    """Returns what the server tells about itself, and what to be warned of."""
    asked = time.time()
    server = client.get_server()
    now = (asked + time.time()) / 2
    warnings = list(server.risks)
    told: dict[str, Cell] = {"server version": server.version, "durability": server.durability}
    told |= {quota.removeprefix("quota_") + " used": f"{use} of {most}" for quota, (use, most) in server.quotas.items()}
    for clock, shown in (("server clock", server.time), ("Redis clock", server.redis_time)):
        ahead = shown.timestamp() - now
        told[clock] = f"{ahead:+.1f} s from this machine's"
        if abs(ahead) > CLOCK_SECONDS:
            warnings.append(f"the {clock} is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's")
    return told, warnings


def _proxy(heeded: bool) -> str:
    found = [f"{name}={os.environ[name]}" for name in PROXIES if os.environ.get(name)]
    if not found:
        return "none"
    return f"{', '.join(found)} ({'used' if heeded else 'ignored'})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from source"
