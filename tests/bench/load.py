"""Several jobs at once: pairs of a selection and a report that servers serve in a second."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import monotonic, sleep

import numpy as np

import bots
from tests.bench.sides import ServiceSide
from tests.bench.workload import Workload, workload

JOBS = (1, 4, 16)
SIZE = 92_000
_context = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Load:
    """Pairs a second of `jobs` processes, each with one connection to one of `servers` server processes.

    shared: all on one run, else each on its own
    """

    servers: int
    jobs: int
    shared: bool
    pairs_per_second: float


def loads(addresses: list[str], seconds: float, told: Callable[[str], object]) -> list[Load]:
    """Returns the load that the first server serves, and that all of them serve."""
    work, rng = workload(SIZE, "16ths"), np.random.default_rng(3)
    with bots.Client(addresses, timeout=60, strict=True) as client:
        work.store(client, "load")
        side = ServiceSide(work, 32, client.create_run("load", "shared"))
        for _ in range(300):
            side.step(rng)
        for job in range(max(JOBS)):
            client.create_run("load", f"own-{job}", fork_from="shared")
    told("load: jobs start")
    found = []
    with _jobs(max(JOBS)) as connections:
        for shared in (True, False):
            for jobs in JOBS:
                for servers in (1, len(addresses)):
                    told(f"load: {servers} servers, {jobs} jobs, {'one run' if shared else 'own runs'}")
                    begin = monotonic() + 1.5  # all have connected by then
                    for job, connection in enumerate(connections[:jobs]):
                        connection.send(
                            (addresses[:servers], "shared" if shared else f"own-{job}", begin, begin + seconds)
                        )
                    pairs = sum(connection.recv() for connection in connections[:jobs])
                    found.append(Load(servers, jobs, shared, pairs / seconds))
    return found


@contextmanager
def _jobs(number: int) -> Iterator[list[Connection]]:
    """Yields connections to job processes; ends these."""
    pairs = [_context.Pipe() for _ in range(number)]
    processes = [_context.Process(target=_job, args=(theirs,), daemon=True) for _, theirs in pairs]
    for process in processes:
        process.start()
    connections = [ours for ours, _ in pairs]
    try:
        for connection in connections:
            connection.recv()  # it is there
        yield connections
    finally:
        for connection in connections:
            connection.send(None)
        for process in processes:
            process.join(10)
            process.kill()


def _job(connection: Connection) -> None:
    """One trainer: selects and reports from `begin` to `end`, and tells how many pairs."""
    work: Workload = workload(SIZE, "16ths")
    rng = np.random.default_rng()
    connection.send("ready")
    while (order := connection.recv()) is not None:
        addresses, run, begin, end = order
        pairs = 0
        with bots.Client(addresses, timeout=60, strict=True) as client:
            side = ServiceSide(work, 32, client.run("load", run))
            side.step(rng)
            sleep(max(0.0, begin - monotonic()))
            while monotonic() < end:
                side.step(rng)
                pairs += 1
        connection.send(pairs)
