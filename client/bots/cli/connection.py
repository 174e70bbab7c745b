"""How the command reaches the service, from the options before the subcommand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import bots


def connect(
    context: typer.Context,
    server: Annotated[
        str, typer.Option(envvar="BOTS_SERVER", help="Where the service is: host:port, or any name that gRPC knows.")
    ] = "localhost:50051",
    token: Annotated[
        str | None, typer.Option(envvar="BOTS_TOKEN", help="Token of the service; better in the variable than here.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", envvar="BOTS_TLS", help="Encrypt.")] = False,
    ca_file: Annotated[
        Path | None, typer.Option(envvar="BOTS_CA_FILE", help="Encrypt, and trust the authority in this PEM file.")
    ] = None,
    timeout: Annotated[float, typer.Option(envvar="BOTS_TIMEOUT", help="Deadline of a call in seconds.")] = 5.0,
    job: Annotated[str, typer.Option(envvar="BOTS_JOB", help="Name under which the history shows you.")] = "cli",
) -> None:
    """Task selection for reinforcement finetuning: which tasks should the policy of the day train on?"""
    encryption = bots.TLS(ca_file) if tls or ca_file else None
    context.obj = bots.Client(server, timeout=timeout, token=token, tls=encryption, job=job)
    context.call_on_close(context.obj.close)


def client_of(context: typer.Context) -> bots.Client:
    """Returns the client that the options before the subcommand describe."""
    client = context.obj
    assert isinstance(client, bots.Client)
    return client


def run_of(context: typer.Context, name: str) -> bots.Run:
    """Returns the run that is written DATASET/RUN."""
    return client_of(context).run(*split(name))


def split(name: str) -> tuple[str, str]:
    """Returns (dataset, run) of DATASET/RUN. ValueError: it is written otherwise."""
    dataset, slash, run = name.partition("/")
    if not (dataset and slash and run):
        raise ValueError(f"run: {name!r}, must be written DATASET/RUN")
    return dataset, run


RunName = Annotated[str, typer.Argument(metavar="DATASET/RUN", show_default=False)]
