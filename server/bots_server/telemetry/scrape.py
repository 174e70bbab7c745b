"""`/metrics`: one page on one port, also with several worker processes.

The parent serves the page. At each scrape it asks every worker over a pipe for the samples of its registry, and adds
the label `process` (the worker's number). A sum over that label is the server's, and Prometheus needs one target.
"""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric

WORKER_SECONDS = 2.0  # below Prometheus' default scrape timeout of 10 s, also with several workers stuck

log = logging.getLogger(__name__)


@contextmanager
def serve_metrics(port: int, registry: CollectorRegistry, host: str = "127.0.0.1") -> Iterator[int]:
    """Serves /metrics in a thread, and yields its port; port 0 picks a free one. Raises OSError if it is taken."""
    server, thread = start_http_server(port, addr=host, registry=registry)
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer_scrapes(connection: Connection, registry: CollectorRegistry) -> threading.Thread:
    """Answers the parent's scrapes, in a worker's thread that ends when the parent does."""

    def answer() -> None:
        try:
            while True:
                scrape = connection.recv()
                connection.send((scrape, list(registry.collect())))
        except (EOFError, OSError):  # the parent is gone
            return

    thread = threading.Thread(target=answer, name="scrapes", daemon=True)
    thread.start()
    return thread


class Workers:
    """A collector of the workers' registries, for the parent."""

    def __init__(self, connections: Mapping[str, Connection]) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._scrape = 0

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: registering asks no worker."""
        return ()

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("bots_worker_up", "The worker process answered this scrape.", labels=("process",))
        families: dict[str, Metric] = {}
        with self._lock:
            self._scrape += 1
            for process, connection in list(self._connections.items()):  # workers may be replaced meanwhile
                answer = self._ask(connection)
                up.add_metric((process,), answer is not None)
                for family in answer or ():
                    merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    merged.samples += [
                        sample._replace(labels={**sample.labels, "process": process}) for sample in family.samples
                    ]
        yield up
        yield from families.values()

    def _ask(self, connection: Connection) -> list[Metric] | None:
        """Returns a worker's metrics; None if it is gone or does not answer in time."""
        try:
            connection.send(self._scrape)
            while connection.poll(WORKER_SECONDS):
                scrape, metrics = connection.recv()
                if scrape == self._scrape:  # else the late answer to an earlier scrape
                    return list(metrics)
        except (EOFError, OSError):
            return None
        log.warning("a worker did not answer a scrape in %s s", WORKER_SECONDS)
        return None
