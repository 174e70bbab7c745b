"""`bots-server`: settings, a Redis (a private one if none is given), and one process or several that serve."""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from pydantic import SecretStr

from bots_server.api.callers import Callers
from bots_server.errors import Failure, StoreUnavailable
from bots_server.process import address, embedded, fsck, token
from bots_server.process.server import METHODS, Server, certificates, make_server
from bots_server.process.settings import Settings, settings
from bots_server.process.signals import stop_on
from bots_server.process.workers import Pulse, Worker, WorkerFailed, supervise
from bots_server.store import Durability, RedisClient, Refused, Store, check_redis, choose_durability, connect
from bots_server.telemetry.logs import RecordQueue, start_logging
from bots_server.telemetry.metrics import Metrics
from bots_server.telemetry.scrape import Workers, answer_scrapes, serve_metrics

GRACE_SECONDS = 10.0
END_SECONDS = 40.0  # from a signal to the end of the process: workers drain, and then the private Valkey writes
WAIT_SECONDS = 1.0  # between two attempts to reach Redis at the start
CHECK_SECONDS = 60.0  # between two looks at what puts data at risk in Redis

log = logging.getLogger("bots_server")


# What the first argument may ask for in place of serving; each gets the arguments after it.
COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "fsck": fsck.main,
    "token": token.main,
    "--version": lambda arguments: print(version("bots-server")),  # noqa: T201
}


def main() -> None:
    if (command := COMMANDS.get(next(iter(sys.argv[1:]), ""))) is not None:
        return command(sys.argv[2:])
    chosen = settings(sys.argv[1:])
    records = start_logging(chosen.log_format, chosen.log_level)
    stopping = threading.Event()
    stop_on((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), stopping, seconds=END_SECONDS)
    try:
        check_files(chosen)
        given, fsync = chosen.redis_url(), chosen.durability == "fsync"
        private = embedded.start(chosen.data_dir, fsync=fsync, stopping=stopping)
        with private if given is None else nullcontext(given) as url:
            chosen = chosen.model_copy(update={"redis": SecretStr(url)})
            durability = wait_for_redis(chosen, stopping)
            if durability is None:
                return None
            threading.Thread(target=watch_risks, args=(chosen, stopping), name="risks", daemon=True).start()
            if chosen.processes == 1:
                serve(chosen, durability, records, stopping)
            else:
                serve_with_workers(chosen, durability, stopping)
    except (embedded.EmbeddedError, Failure, OSError, ValueError, WorkerFailed) as error:
        raise SystemExit(f"bots-server: {error}") from error


def check_files(chosen: Settings) -> None:
    """Raises OSError or ValueError if a file that a setting names cannot be used. Warns if strangers may call."""
    Callers(chosen.tokens_file)
    if (pair := certificates(chosen)) is not None:
        pair.context()
    if chosen.open_to_others and chosen.lacking:
        log.warning("insecure: other machines reach this server without %s", chosen.lacking)


def client_of(chosen: Settings, on_retry: Callable[[], None] = lambda: None) -> RedisClient:
    assert chosen.redis is not None
    return connect(chosen.redis.get_secret_value(), timeout_seconds=chosen.redis_timeout_seconds, on_retry=on_retry)


def wait_for_redis(chosen: Settings, stopping: threading.Event) -> Durability | None:
    """Returns the durability of an acknowledged report, once Redis answers; None if `stopping` is set before.

    Raises Refused if Redis does not accept the login or the database.
    """
    told = ""
    while not stopping.is_set():
        try:
            with closing(client_of(chosen)) as client:
                durability = choose_durability(
                    client,
                    chosen.durability,
                    replicas=chosen.durability_replicas,
                    timeout_seconds=min(1.5, 0.75 * chosen.redis_timeout_seconds),  # ends before the socket's timeout
                )
            log.info("durability of an acknowledged report: %s", durability.level.value)
            return durability
        except Refused:
            raise
        except StoreUnavailable as failure:
            if str(failure) != told:
                told = str(failure)
                log.warning("waiting for Redis: %s", told)
            stopping.wait(WAIT_SECONDS)
    return None


def watch_risks(chosen: Settings, stopping: threading.Event, seconds: float = CHECK_SECONDS) -> None:
    """Logs what puts data at risk in this Redis: now, and what is new every `seconds`."""
    known: set[str] = set()
    while True:
        try:
            with closing(client_of(chosen)) as client:
                risks = check_redis(client)
            for risk in risks:
                if risk not in known:
                    log.warning("%s", risk)
            known = set(risks)
        except Failure as failure:
            log.debug("cannot look for risks: %s", failure)
        if stopping.wait(seconds):
            return


@contextmanager
def serving(
    chosen: Settings, durability: Durability, records: RecordQueue
) -> Iterator[tuple[Server, CollectorRegistry]]:
    """Yields a server that is not started yet, and its metrics; stops it afterwards."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    metrics = Metrics(registry, METHODS)
    records.on_drop = metrics.log_record_dropped
    store = Store(
        client_of(chosen, metrics.redis_retry),
        durability=durability,
        history_bytes=chosen.history_bytes,
        quotas=chosen.quotas,
        observe=metrics.observe_redis,
        prefix=chosen.key_prefix,
    )
    with closing(store):
        server = make_server(store, chosen, metrics)
        try:
            yield server, registry
        finally:
            server.stop(GRACE_SECONDS)


def serve(chosen: Settings, durability: Durability, records: RecordQueue, stopping: threading.Event) -> None:
    """Serves in this process until `stopping` is set."""
    with (
        serving(chosen, durability, records) as (server, registry),
        metrics_page(chosen, registry, lambda: bool(server.serving)),
    ):
        server.start()
        announce(chosen, server.port)
        stopping.wait()
        log.info("draining")


def serve_with_workers(chosen: Settings, durability: Durability, stopping: threading.Event) -> None:
    """Serves in several processes on one port until `stopping` is set."""
    registry = CollectorRegistry()
    workers: dict[str, Worker] = {}
    registry.register(Workers(lambda: {number: worker.connection for number, worker in workers.items()}))
    with (
        address.reserved(chosen.host, chosen.port, "--port") as port,
        metrics_page(chosen, registry, lambda: any(worker.serving for worker in list(workers.values()))),
    ):
        own = chosen.model_copy(update={"port": port, "metrics_port": None})
        work = partial(serve_as_worker, own, durability)
        supervise(chosen.processes, work, workers, stopping, lambda: announce(chosen, port))


def serve_as_worker(
    chosen: Settings, durability: Durability, connection: Connection, pulse: Pulse, stopping: threading.Event
) -> None:
    """Serves in a worker process until `stopping` is set."""
    records = start_logging(chosen.log_format, chosen.log_level)
    try:
        with serving(chosen, durability, records) as (server, registry):
            answer_scrapes(connection, registry)
            server.on_probe = pulse.beat
            server.start()
            stopping.wait()
    except (Failure, OSError, ValueError) as error:
        raise SystemExit(f"bots-server: {error}") from error


@contextmanager
def metrics_page(chosen: Settings, registry: CollectorRegistry, healthy: Callable[[], bool]) -> Iterator[None]:
    """Serves /metrics and /healthz if a port for them is given."""
    if chosen.metrics_port is None:
        yield
        return
    # A name may have several addresses, of which one is enough here.
    bound = address.bind(address.resolve(chosen.metrics_host)[0], chosen.metrics_port, "--metrics-port")
    port = bound.getsockname()[1]
    pair = certificates(chosen)
    context = None if pair is None else pair.context
    allowed = Callers(chosen.tokens_file).may_scrape
    with serve_metrics(bound, registry, healthy=healthy, allowed=allowed, context=context):
        print(f"metrics on {address.shown(chosen.metrics_host, port)}", flush=True)  # noqa: T201
        yield


def announce(chosen: Settings, port: int) -> None:
    """Prints the address, which nobody else knows with port 0."""
    print(f"listening on {address.shown(chosen.host, port)}", flush=True)  # noqa: T201
