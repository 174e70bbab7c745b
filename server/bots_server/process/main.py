"""`bots-server`: settings, a Redis (a private one where none is given), and one process or several that serve."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from bots_server.process import embedded
from bots_server.allocator import keep_freed_memory
from bots_server.errors import Failure
from bots_server.telemetry.logs import start_logging
from bots_server.telemetry.metrics import Metrics
from bots_server.telemetry.scrape import Workers, answer_scrapes, process_metrics, serve_metrics
from bots_server.process.server import Server
from bots_server.process.settings import Settings, settings
from bots_server.process.signals import stop_on
from bots_server.store import Client, Durability, Store, check_redis, choose_durability, connect
from bots_server.process.workers import reserve_port, supervise, wait_until_listening

GRACE_SECONDS = 10.0

log = logging.getLogger("bots_server")


def main() -> None:
    chosen = settings(sys.argv[1:])
    start_logging(chosen.log_format, chosen.log_level)
    stopping = threading.Event()
    stop_on((signal.SIGTERM, signal.SIGINT), stopping)
    try:
        with redis_url(chosen, stopping) as url:
            chosen = chosen.model_copy(update={"redis": SecretStr(url)})
            warn_of_risks(chosen)
            if chosen.processes == 1:
                serve(chosen, stopping)
            else:
                serve_with_workers(chosen, stopping)
    except (embedded.EmbeddedError, Failure, OSError, ValueError) as error:
        raise SystemExit(f"bots-server: {error}") from error


@contextmanager
def redis_url(chosen: Settings, stopping: threading.Event) -> Iterator[str]:
    """Yields the URL of the Redis to use, and ends the private one afterwards.

    Where the private one ends by itself, so does the server: whoever starts it again starts both, over the same data.
    """
    if chosen.redis is not None:
        yield chosen.redis.get_secret_value()
        return
    died = threading.Event()

    def end() -> None:
        died.set()
        stopping.set()

    with embedded.start(chosen.data_dir, fsync=chosen.durability == "fsync", on_death=end) as url:
        log.info("private Valkey over %s", chosen.data_dir)
        yield url
    if died.is_set():
        raise embedded.EmbeddedError(f"the private Valkey ended by itself: see {chosen.data_dir / 'valkey.log'}")


def durability(chosen: Settings, client: Client) -> Durability:
    """Returns what an acknowledged report must have reached. The wait for it ends before the socket's timeout."""
    return choose_durability(
        client,
        chosen.durability,
        replicas=chosen.durability_replicas,
        timeout_seconds=min(1.5, 0.75 * chosen.redis_timeout_seconds),
    )


@contextmanager
def open_store(chosen: Settings, metrics: Metrics) -> Iterator[Store]:
    """Yields the store at the chosen Redis."""
    assert chosen.redis is not None
    client = connect(
        chosen.redis.get_secret_value(),
        timeout_seconds=chosen.redis_timeout_seconds,
        on_retry=metrics.redis_retry,
    )
    store = Store(client, durability=durability(chosen, client), observe=metrics.observe_redis)
    try:
        yield store
    finally:
        store.close()


def warn_of_risks(chosen: Settings) -> None:
    """Says once, at the start, what an acknowledged report has reached, and what this Redis puts at risk."""
    assert chosen.redis is not None
    client = connect(chosen.redis.get_secret_value(), timeout_seconds=chosen.redis_timeout_seconds)
    log.info("durability of an acknowledged report: %s", durability(chosen, client).level.value)
    for risk in check_redis(client):
        log.warning("%s", risk)
    client.close()


def serve(chosen: Settings, stopping: threading.Event) -> None:
    """Serves in this process until told to stop."""
    keep_freed_memory()
    registry = CollectorRegistry()
    process_metrics(registry)
    metrics = Metrics(registry)
    with open_store(chosen, metrics) as store:
        server = Server(store, chosen, metrics)
        with metrics_page(chosen, registry):
            server.start()
            announce(chosen, server.port)
            stopping.wait()
            log.info("draining")
            server.stop(GRACE_SECONDS)


def serve_with_workers(chosen: Settings, stopping: threading.Event) -> None:
    """Serves in several processes on one port until told to stop."""
    registry = CollectorRegistry()
    connections: dict[str, Connection] = {}
    registry.register(Workers(connections))
    with reserve_port(chosen.host, chosen.port) as reserved, metrics_page(chosen, registry):
        port = reserved.getsockname()[1]
        work = Worker(chosen.model_copy(update={"port": port, "metrics_port": None}))

        def announce_when_ready() -> None:
            if wait_until_listening(reserved, stopping):
                announce(chosen, port)

        threading.Thread(target=announce_when_ready, name="announce", daemon=True).start()
        supervise(chosen.processes, work, connections, stopping)


@dataclass(frozen=True)
class Worker:
    """What a worker process does."""

    settings: Settings

    def __call__(self, connection: Connection, stopping: threading.Event) -> None:
        keep_freed_memory()
        start_logging(self.settings.log_format, self.settings.log_level)
        registry = CollectorRegistry()
        process_metrics(registry)
        metrics = Metrics(registry)
        with open_store(self.settings, metrics) as store:
            server = Server(store, self.settings, metrics)
            answer_scrapes(connection, registry)
            server.start()
            stopping.wait()
            server.stop(GRACE_SECONDS)


@contextmanager
def metrics_page(chosen: Settings, registry: CollectorRegistry) -> Iterator[None]:
    """Serves /metrics where a port for it is given."""
    if chosen.metrics_port is None:
        yield
        return
    page = serve_metrics(chosen.metrics_port, registry, chosen.metrics_host)
    print(f"metrics on {chosen.metrics_host}:{page.port}", flush=True)  # noqa: T201
    try:
        yield
    finally:
        page.close()


def announce(chosen: Settings, port: int) -> None:
    """Prints where calls are taken: with port 0 nobody else knows."""
    print(f"listening on {chosen.host}:{port}", flush=True)  # noqa: T201
