"""The service as a trainer calls it, blocking."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from bots import client_operations as operations
from bots.calls import Steps, T, blocking, iterated
from bots.channel import Channel
from bots.client_operations import ClientCore
from bots.columns import number, plain
from bots.errors import invalid
from bots.incarnation import incarnation as incarnation_
from bots.run import Batch, Run
from bots.session import Session
from bots.target import TLS, Target
from bots.token import Token


class Client(ClientCore):
    """Connects at the first call. Picklable; safe to share among threads; a context manager; see `bots.fork` for forks.

    target       "host:port", any other gRPC name ("dns:///name:port", "unix:/path"), or several "IP address:port" (a
                 sequence, or one string with commas): one of them is used, and another if it dies.
    timeout      deadline of every call in seconds, with connecting and retries; uploads and downloads have their own.
    token        sent as "authorization: Bearer". It is part of a pickle, and crosses the network in clear without TLS.
    token_file   a file with the token, read at each call, so that a new token needs no restart.
    tls          how to encrypt; None: not.
    job          name of this trainer job, at most 128 bytes: for the history, leases and resuming. All processes of a
                 job give the same name, and so does the job when it is started again.
    incarnation  tells this start of the job from the next; None: from the environment, see `bots.incarnation`.
    outbox       a file for the reports that wait, so that they survive this process; None: memory alone.
    strict       raise the errors of a service that is away, instead of going on without it.
    proxy        heed http_proxy and the like, which are ignored otherwise.

    While the service is away a trainer goes on (guarantee 6): `select` draws uniformly (`Batch.fallback`), `report`
    keeps what it cannot deliver and returns None, and what was kept is delivered in the background when the service is
    back. One warning says when it went away and one when it is back; `Run.stats` counts. `close`, and the end of the
    process, deliver what waits within the timeout.
    """

    session: Session

    def __init__(
        self,
        target: str | Sequence[str] = "localhost:50051",
        *,
        timeout: float = 5.0,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        tls: TLS | None = None,
        job: str = "",
        incarnation: str | None = None,
        outbox: str | os.PathLike[str] | None = None,
        strict: bool = False,
        proxy: bool = False,
    ) -> None:
        self.session = Session(
            Channel(Target.of(target, Token(token, token_file), tls, proxy)),
            **session_settings(timeout=timeout, job=job, incarnation=incarnation, outbox=outbox, strict=strict),
        )
        self.session.begin()

    def __repr__(self) -> str:
        session = self.session
        return f"Client({','.join(session.channel.target.addresses)!r}, timeout={session.timeout}, job={session.job!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def timeout(self) -> float:
        """Deadline of a call in seconds."""
        return self.session.timeout

    @property
    def job(self) -> str:
        """Name of this trainer job."""
        return self.session.job

    @property
    def incarnation(self) -> str:
        """What tells this start of the job from the next."""
        return self.session.incarnation

    @property
    def strict(self) -> bool:
        """Whether a service that is away is an error."""
        return self.session.strict

    def close(self) -> None:
        """Delivers what waits, within the timeout, and ends the connection; a later call is a RuntimeError."""
        self.session.close()

    def drive(self, steps: Steps[T], /) -> T:
        """Returns the result of an operation."""
        return self.session.drive(steps)

    def handle(self, dataset: str, name: str, **known: Any) -> Run:
        """Returns the run object of a name."""
        return Run(self.session, Batch, dataset, name, **known)

    def run(self, dataset: str, name: str) -> Run:
        """Returns a run that exists. It makes no call: the first call of the run finds out."""
        return self.handle(dataset, name)

    create_dataset = blocking(operations.create_dataset)
    get_dataset = blocking(operations.get_dataset)
    list_datasets = iterated(operations.list_datasets)
    delete_dataset = blocking(operations.delete_dataset)
    list_runs = iterated(operations.list_runs)
    delete_run = blocking(operations.delete_run)
    create_run = blocking(operations.create_run, Run)
    get_server = blocking(operations.get_server)
    flush = blocking(operations.flush)


def session_settings(
    *, timeout: float, job: str, incarnation: str | None, outbox: str | os.PathLike[str] | None, strict: bool
) -> dict[str, Any]:
    """Returns the settings of a session, checked."""
    seconds = number("timeout", plain(timeout))
    if not 0 < seconds < float("inf"):
        raise invalid("timeout", timeout, "must be above 0 seconds")
    if len(job.encode()) > 128:
        raise invalid("job", f"{len(job.encode())} bytes", "must be at most 128 bytes")
    return {
        "timeout": seconds,
        "job": job,
        "incarnation": incarnation_(incarnation),
        "strict": strict,
        "outbox": None if outbox is None else os.fspath(outbox),
    }
