"""One serving process: a gRPC server over a store, with health, reflection and metrics."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2_grpc

from bots.v1.task_selection_pb2_grpc import add_TaskSelectionServiceServicer_to_server
from bots_server.api.admission import Arrivals, LongCalls, ShortCalls
from bots_server.api.callers import Callers
from bots_server.api.health import Health
from bots_server.api.interceptor import CallInterceptor
from bots_server.api.methods import MAX_MESSAGE_BYTES, REFLECTION, SERVICE
from bots_server.api.reflection import Reflection
from bots_server.api.servicer import TaskSelectionService
from bots_server.errors import Damaged, DeadlineExceeded, Failure, RunReplaced, StoreUnavailable
from bots_server.process import address
from bots_server.process.settings import Settings
from bots_server.process.tls import Certificates
from bots_server.runs.registry import Registry
from bots_server.store import Store, within
from bots_server.telemetry.figures import ObservedRun
from bots_server.telemetry.metrics import Metrics

METHODS = tuple(SERVICE.methods_by_name)
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
MAX_CONNECTIONS = 4_096
MAX_STREAMS = 256  # calls at once on one connection
HANDSHAKE_SECONDS = 10.0  # for a connection's TLS and HTTP/2 handshakes
PING_SECONDS = 10.0  # between two pings of a client, at least: more of them end its connection
IDENTITY_ENCODING = 1  # bit set of the compressions that requests may have: none
CONNECTION_GRACE_SECONDS = 3600.0  # for calls on a connection that is too old: longer than any upload
QUEUED_PER_THREAD = 32  # calls beyond that are refused with RESOURCE_EXHAUSTED
END_SECONDS = 2.0  # for the calls that are cut at the end of the grace
PROBE_SECONDS = 1.0
SCRAPE_SECONDS = 5.0  # for reading the runs from Redis; below Prometheus' timeout of 10 s

log = logging.getLogger(__name__)


class Server:
    """A gRPC server with its registry, health and probe. `make_server` makes it; `port` is where it listens."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        long_calls: LongCalls,
        arrivals: Arrivals,
        server: grpc.Server,
        health: Health,
        callers: Callers,
        stopping: threading.Event,
        port: int,
    ) -> None:
        self.port = port
        self._store, self._registry, self._server = store, registry, server
        self._long_calls, self._arrivals = long_calls, arrivals
        self._health, self._callers, self._stopping = health, callers, stopping
        self.serving: bool | None = None
        self.on_probe: Callable[[bool], object] = lambda serving: None  # called each second
        self._probe = threading.Thread(target=self._probe_store, name="probe", daemon=True)

    def start(self) -> None:
        """Starts to serve."""
        self._report_health()
        self._server.start()
        self.on_probe(bool(self.serving))
        self._probe.start()

    def stop(self, grace_seconds: float) -> None:
        """Accepts no more calls, reports NOT_SERVING, and waits at most `grace_seconds` for the calls in progress.

        Calls that wait for their turn are refused, and then those that are still in progress are cut.
        """
        self.serving = False
        self._stopping.set()
        self._health.serving = False
        ended = self._server.stop(grace_seconds)
        ended.wait(grace_seconds)
        self._registry.close()
        ended.wait(END_SECONDS)

    def _probe_store(self) -> None:
        while not self._stopping.wait(PROBE_SECONDS):
            self._report_health()
            self.on_probe(bool(self.serving))
            self._callers.reload()
            self._registry.evict()
            self._long_calls.cancel_stalled()
            self._arrivals.cancel_late()

    def _report_health(self) -> None:
        """Reports SERVING if the store answers, so that a balancer avoids a server that is cut off from it."""
        try:
            self._store.ping()
            serving = True
        except Failure as failure:
            serving = False
            if self.serving is not False:
                log.warning("not serving: %s", failure)
        if serving and self.serving is False:
            log.info("serving again")
        self.serving = serving
        self._health.serving = serving and not self._stopping.is_set()


def make_server(store: Store, settings: Settings, metrics: Metrics) -> Server:
    """Returns a server that is not started yet. `store` is closed by its maker, after `stop`."""
    stopping = threading.Event()
    registry = Registry(store, metrics, max_bytes=settings.max_memory_bytes, idle_seconds=settings.replica_idle_seconds)
    short_calls = ShortCalls(settings.max_calls_per_caller, stopping)
    long_calls = LongCalls(
        short_calls,
        settings.max_long_calls,
        settings.max_long_calls_per_caller,
        settings.max_call_seconds,
        settings.max_idle_seconds,
    )
    callers, health, arrivals = Callers(settings.tokens_file), Health(), Arrivals(settings.max_idle_seconds)
    threads = settings.threads + settings.max_long_calls
    server = grpc.server(
        started_pool(threads),
        interceptors=[CallInterceptor(metrics, callers, arrivals, short_calls)],
        maximum_concurrent_rpcs=threads * QUEUED_PER_THREAD,
        options=[
            ("grpc.so_reuseport", int(settings.processes > 1)),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.compression_enabled_algorithms_bitset", IDENTITY_ENCODING),
            ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.server_handshake_timeout_ms", round(HANDSHAKE_SECONDS * 1000)),
            ("grpc.max_connection_age_ms", round(settings.connection_age_seconds * 1000)),
            ("grpc.max_connection_age_grace_ms", round(CONNECTION_GRACE_SECONDS * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", round(PING_SECONDS * 1000)),
        ],
    )
    service: Any = TaskSelectionService(
        store,
        registry,
        metrics,
        long_calls=long_calls,
        max_lease_seconds=settings.max_lease_seconds,
        stopping=stopping,
    )
    add_TaskSelectionServiceServicer_to_server(service, server)
    server.add_generic_rpc_handlers((health,))
    reflected: Any = Reflection((SERVICE.full_name, HEALTH, REFLECTION.full_name))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, server)
    metrics.rpc_threads(threads)
    metrics.replicas(lambda: len(registry.held()))
    metrics.damaged_runs(registry.damaged)
    metrics.export_runs(partial(observed_runs, registry))
    metrics.export_usage(partial(observed_usage, store), asdict(store.quotas.limits))
    return Server(store, registry, long_calls, arrivals, server, health, callers, stopping, listen(server, settings))


def observed_runs(registry: Registry) -> list[ObservedRun]:
    """Returns the held runs for a scrape: as they are in Redis, or as they were seen last if Redis is away.

    So all servers export the same of a run, also one that no trainer has asked since.
    """
    away, observed = False, []
    with within(SCRAPE_SECONDS):
        for replica in registry.held():
            try:
                view = replica.last_view() if away else replica.view()
            except (RunReplaced, Damaged):  # `damaged_runs` counts the damaged
                continue
            except (DeadlineExceeded, StoreUnavailable):  # each further one would wait as long
                away, view = True, replica.last_view()
            except Failure:  # of this run alone
                view = replica.last_view()
            if view is not None:
                record, summary = replica.record, replica.summary(view.posterior)
                observed.append(
                    ObservedRun(record.dataset, record.name, record.uid, view.posterior, summary, view.live_leases)
                )
    return observed


def observed_usage(store: Store) -> dict[str, dict[str, int]]:
    """Returns what identities use, for a scrape; nothing if Redis is away."""
    try:
        with within(SCRAPE_SECONDS):
            return {identity: asdict(use) for identity, use in store.quotas.use().items()}
    except Failure:
        return {}


def started_pool(threads: int) -> ThreadPoolExecutor:
    """Returns a pool whose threads all run. gRPC stops serving for good if it cannot start one when a call arrives.

    Raises OSError if the system does not allow them.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="calls")
    meeting = threading.Barrier(threads + 1)
    try:
        for _ in range(threads):
            pool.submit(meeting.wait)
    except RuntimeError as error:
        meeting.abort()
        raise OSError(f"cannot start {threads} threads (--threads, --max-long-calls): {error}") from error
    meeting.wait()
    return pool


def certificates(settings: Settings) -> Certificates | None:
    """Returns the server's certificate; None: it serves without TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def listen(server: grpc.Server, settings: Settings) -> int:
    """Returns the port that the server listens on, at every address of the host. Raises OSError if it cannot."""
    pair = certificates(settings)
    credentials = pair and pair.credentials()
    port = settings.port
    for host in address.resolve(settings.host):
        if address.is_unix(host):
            address.check_socket(host.removeprefix("unix:"))
        where = address.shown(host, port)
        try:
            port = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
        except RuntimeError as error:  # which does not say why
            if not address.is_unix(host):
                address.bind(host, port, "--host, --port", shared=settings.processes > 1).close()
            raise OSError(f"cannot listen on {where} (--host, --port)") from error
    return port
