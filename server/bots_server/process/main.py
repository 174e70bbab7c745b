"""`bots-server`: settings, a Redis (a private one if none is given), and one process or several that serve."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from pydantic import SecretStr

from bots_server.errors import Failure
from bots_server.process import embedded, fsck
from bots_server.process.server import METHODS, Server, make_server
from bots_server.process.settings import Settings, settings
from bots_server.process.signals import stop_on
from bots_server.process.workers import reserve_port, supervise, when_listening
from bots_server.store import Durability, RedisClient, Store, check_redis, choose_durability, connect
from bots_server.telemetry.logs import RecordQueue, start_logging
from bots_server.telemetry.metrics import Metrics
from bots_server.telemetry.scrape import Workers, answer_scrapes, serve_metrics

GRACE_SECONDS = 10.0

log = logging.getLogger("bots_server")


# What the first argument may ask for in place of serving; each gets the arguments after it.
COMMANDS = {"fsck": fsck.main}


def main() -> None:
    if (command := COMMANDS.get(next(iter(sys.argv[1:]), ""))) is not None:
        return command(sys.argv[2:])
    chosen = settings(sys.argv[1:])
    records = start_logging(chosen.log_format, chosen.log_level)
    stopping = threading.Event()
    stop_on((signal.SIGTERM, signal.SIGINT), stopping)
    try:
        with redis_url(chosen, stopping) as url:
            chosen = chosen.model_copy(update={"redis": SecretStr(url)})
            warn_of_risks(chosen)
            if chosen.processes == 1:
                serve(chosen, records, stopping)
            else:
                serve_with_workers(chosen, stopping)
    except (embedded.EmbeddedError, Failure, OSError, ValueError) as error:
        raise SystemExit(f"bots-server: {error}") from error


@contextmanager
def redis_url(chosen: Settings, stopping: threading.Event) -> Iterator[str]:
    """Yields the URL of the Redis to use, and ends the private one afterwards.

    If the private one ends by itself, the server ends too, so that a restart starts both over the same data.
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


def durability(chosen: Settings, client: RedisClient) -> Durability:
    """Returns the durability of an acknowledged write. The wait for it ends before the socket's timeout."""
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
    """Logs the durability of an acknowledged report, and what puts data at risk in this Redis."""
    assert chosen.redis is not None
    client = connect(chosen.redis.get_secret_value(), timeout_seconds=chosen.redis_timeout_seconds)
    log.info("durability of an acknowledged report: %s", durability(chosen, client).level.value)
    for risk in check_redis(client):
        log.warning("%s", risk)
    client.close()


@contextmanager
def serving(chosen: Settings, records: RecordQueue) -> Iterator[tuple[Server, CollectorRegistry]]:
    """Yields a server that is not started yet, and its metrics; stops it afterwards."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    metrics = Metrics(registry, METHODS)
    records.on_drop = metrics.log_record_dropped
    with open_store(chosen, metrics) as store:
        server = make_server(store, chosen, metrics)
        try:
            yield server, registry
        finally:
            server.stop(GRACE_SECONDS)


def serve(chosen: Settings, records: RecordQueue, stopping: threading.Event) -> None:
    """Serves in this process until `stopping` is set."""
    with serving(chosen, records) as (server, registry), metrics_page(chosen, registry):
        server.start()
        announce(chosen, server.port)
        stopping.wait()
        log.info("draining")


def serve_with_workers(chosen: Settings, stopping: threading.Event) -> None:
    """Serves in several processes on one port until `stopping` is set."""
    registry = CollectorRegistry()
    connections: dict[str, Connection] = {}
    registry.register(Workers(connections))
    with reserve_port(chosen.host, chosen.port) as reserved, metrics_page(chosen, registry):
        port = reserved.getsockname()[1]
        work = partial(serve_as_worker, chosen.model_copy(update={"port": port, "metrics_port": None}))
        when_listening(reserved, stopping, lambda: announce(chosen, port))
        supervise(chosen.processes, work, connections, stopping)


def serve_as_worker(chosen: Settings, connection: Connection, stopping: threading.Event) -> None:
    """Serves in a worker process until `stopping` is set."""
    records = start_logging(chosen.log_format, chosen.log_level)
    with serving(chosen, records) as (server, registry):
        answer_scrapes(connection, registry)
        server.start()
        stopping.wait()


@contextmanager
def metrics_page(chosen: Settings, registry: CollectorRegistry) -> Iterator[None]:
    """Serves /metrics if a port for it is given."""
    if chosen.metrics_port is None:
        yield
        return
    with serve_metrics(chosen.metrics_port, registry, chosen.metrics_host) as port:
        print(f"metrics on {chosen.metrics_host}:{port}", flush=True)  # noqa: T201
        yield


def announce(chosen: Settings, port: int) -> None:
    """Prints the address, which nobody else knows with port 0."""
    print(f"listening on {chosen.host}:{port}", flush=True)  # noqa: T201
