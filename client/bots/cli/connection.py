"""How the command reaches the service: options that every subcommand takes, before or after its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

import bots

# Options of `connect`; True: a value follows. `moved_to_front` lets them stand anywhere.
OPTIONS = {
    "--server": True,
    "--token": True,
    "--token-file": True,
    "--tls": False,
    "--ca-file": True,
    "--cert-file": True,
    "--key-file": True,
    "--timeout": True,
    "--job": True,
    "--proxy": False,
}


@dataclass
class Connection:
    """How to reach the service. server: as given; None: the default."""

    server: str | None
    token: str | None
    token_file: Path | None
    tls: bots.TLS | None
    timeout: float
    job: str
    proxy: bool
    opened: list[bots.Client] = field(default_factory=list)

    def client(self) -> bots.Client:
        """Returns a client, the same every time."""
        if not self.opened:
            client = bots.Client(
                self.server or "localhost:50051",
                timeout=self.timeout,
                token=self.token,
                token_file=self.token_file,
                tls=self.tls,
                job=self.job,
                strict=True,
                proxy=self.proxy,
            )
            self.opened.append(client)
        return self.opened[0]

    def close(self) -> None:
        """Closes the client."""
        for client in self.opened:
            client.close()


def connect(
    context: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(
            envvar="BOTS_SERVER",
            help="Where the service is: host:port, or any name that gRPC knows. Default localhost:50051.",
            show_default=False,
        ),
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="BOTS_TOKEN", help="Token of the service; better in the variable than here.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(envvar="BOTS_TOKEN_FILE", help="File with the token of the service.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", envvar="BOTS_TLS", help="Encrypt.")] = False,
    ca_file: Annotated[
        Path | None, typer.Option(envvar="BOTS_CA_FILE", help="Encrypt, and trust the authority in this PEM file.")
    ] = None,
    cert_file: Annotated[
        Path | None, typer.Option(envvar="BOTS_CERT_FILE", help="Your certificate (PEM), if the server asks for one.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(envvar="BOTS_KEY_FILE", help="Its key (PEM).")] = None,
    timeout: Annotated[float, typer.Option(envvar="BOTS_TIMEOUT", help="Deadline of a call in seconds.")] = 5.0,
    job: Annotated[str, typer.Option(envvar="BOTS_JOB", help="Name under which the history shows you.")] = "cli",
    proxy: Annotated[bool, typer.Option("--proxy", help="Heed http_proxy, which is ignored otherwise.")] = False,
) -> None:
    """Task selection for reinforcement finetuning: chooses which tasks to train on next."""
    encrypted = tls or ca_file is not None or cert_file is not None
    encryption = bots.TLS(ca_file, cert_file, key_file) if encrypted else None
    context.obj = Connection(server, token, token_file, encryption, timeout, job, proxy)
    context.call_on_close(context.obj.close)


def moved_to_front(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with the options of `connect` first, which may so stand anywhere before "--"."""
    first: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, _ = argument.partition("=")
        if argument == "--":
            return [*first, *others, argument, *rest]
        if name not in OPTIONS:
            others.append(argument)
            continue
        first.append(argument)
        if OPTIONS[name] and not equals and rest:
            first.append(rest.pop(0))
    return first + others


def connection_of(context: typer.Context) -> Connection:
    """Returns how the service is reached."""
    connection = context.obj
    assert isinstance(connection, Connection)
    return connection


def client_of(context: typer.Context) -> bots.Client:
    """Returns the client that the options describe."""
    return connection_of(context).client()


def run_of(context: typer.Context, name: str) -> bots.Run:
    """Returns the run that is written DATASET/RUN."""
    return client_of(context).run(*split(name))


def split(name: str) -> tuple[str, str]:
    """Returns (dataset, run) of DATASET/RUN. ValueError: it is written otherwise."""
    dataset, slash, run = name.partition("/")
    if not (dataset and slash and run) or "/" in run:
        raise ValueError(f"run: got {name!r}, must be written DATASET/RUN")
    return dataset, run


def tasks_of(context: typer.Context, run: str, texts: Sequence[str], row: bool) -> list[str] | list[int]:
    """Returns tasks as they are typed: ids as written if the dataset has ids, else (or with `row`) row numbers.

    ValueError: a row number is not one.
    """
    if not texts or (not row and client_of(context).get_dataset(split(run)[0]).has_ids):
        return list(texts)
    for text in texts:
        if not text.isdecimal():
            raise ValueError(f"task: got {text!r}, must be a row number" + ("" if row else ": the dataset has no ids"))
    return [int(text) for text in texts]


RunName = Annotated[str, typer.Argument(metavar="DATASET/RUN", show_default=False)]
