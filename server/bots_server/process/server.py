"""One serving process: a gRPC server over a store, with health, reflection and metrics."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from bots.v1.task_selection_pb2_grpc import add_TaskSelectionServiceServicer_to_server
from bots_server.api.interceptor import CallInterceptor
from bots_server.api.servicer import SERVICE, TaskSelectionService
from bots_server.errors import Damaged, Failure, RunReplaced
from bots_server.process.settings import Settings
from bots_server.runs.registry import Registry
from bots_server.store import Store, within
from bots_server.telemetry.collector import ObservedRun
from bots_server.telemetry.metrics import Metrics

METHODS = tuple(SERVICE.methods_by_name)
MAX_MESSAGE_BYTES = 96 * 2**20  # of a request: posteriors of a million tasks by id
CONNECTION_GRACE_SECONDS = 3600.0  # for calls on a connection that is too old: longer than any upload
QUEUED_PER_THREAD = 32  # calls beyond that are refused with RESOURCE_EXHAUSTED
PROBE_SECONDS = 1.0
SCRAPE_SECONDS = 5.0  # for reading the runs from Redis; below Prometheus' timeout of 10 s

log = logging.getLogger(__name__)


class Server:
    """A gRPC server with its registry, health and probe. `make_server` makes it; `port` is where it listens."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        server: grpc.Server,
        health_servicer: health.HealthServicer,
        stopping: threading.Event,
        port: int,
    ) -> None:
        self.port = port
        self._store, self._registry, self._server = store, registry, server
        self._health, self._stopping = health_servicer, stopping
        self._serving: bool | None = None
        self._probe = threading.Thread(target=self._probe_store, name="probe", daemon=True)

    def start(self) -> None:
        """Starts to serve."""
        self._report_health()
        self._server.start()
        self._probe.start()

    def stop(self, grace_seconds: float) -> None:
        """Accepts no more calls, reports NOT_SERVING, and waits at most `grace_seconds` for the calls in progress."""
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_seconds).wait()
        self._registry.close()

    def _probe_store(self) -> None:
        while not self._stopping.wait(PROBE_SECONDS):
            self._report_health()
            self._registry.held()  # drops those that are idle, or more than the memory allows

    def _report_health(self) -> None:
        """Reports SERVING if the store answers, so that a balancer avoids a server that is cut off from it."""
        try:
            self._store.ping()
            serving = True
        except Failure as failure:
            serving = False
            if self._serving is not False:
                log.warning("not serving: %s", failure)
        if serving and self._serving is False:
            log.info("serving again")
        self._serving = serving
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE.full_name):
            self._health.set(service, status)


def make_server(store: Store, settings: Settings, metrics: Metrics) -> Server:
    """Returns a server that is not started yet. `store` is closed by its maker, after `stop`."""
    stopping = threading.Event()
    registry = Registry(store, metrics, max_bytes=settings.max_memory_bytes, idle_seconds=settings.replica_idle_seconds)
    threads = settings.threads + settings.max_long_calls
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="calls"),
        interceptors=[CallInterceptor(metrics, read_token(settings.token_file))],
        maximum_concurrent_rpcs=threads * QUEUED_PER_THREAD,
        options=[
            ("grpc.so_reuseport", int(settings.processes > 1)),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_connection_age_ms", round(settings.connection_age_seconds * 1000)),
            ("grpc.max_connection_age_grace_ms", round(CONNECTION_GRACE_SECONDS * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ],
    )
    service: Any = TaskSelectionService(
        store, registry, metrics, max_long_calls=settings.max_long_calls, stopping=stopping
    )
    add_TaskSelectionServiceServicer_to_server(service, server)
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection((SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    metrics.rpc_threads(threads)
    metrics.replicas(lambda: len(registry.held()))
    metrics.damaged_runs(registry.damaged)
    metrics.export_runs(partial(observed_runs, registry))
    return Server(store, registry, server, health_servicer, stopping, listen(server, settings))


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
            except Failure:  # each further one would wait as long
                away, view = True, replica.last_view()
            if view is not None:
                record, summary = replica.record, replica.summary(view.posterior)
                observed.append(
                    ObservedRun(record.dataset, record.name, record.uid, view.posterior, summary, view.live_leases)
                )
    return observed


def listen(server: grpc.Server, settings: Settings) -> int:
    """Returns the port that the server listens on. Raises OSError if it cannot have it."""
    address = f"{settings.host}:{settings.port}"
    try:
        if settings.tls_cert and settings.tls_key:
            pair = settings.tls_key.read_bytes(), settings.tls_cert.read_bytes()
            return server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: is the port taken?") from error


def read_token(path: Path | None) -> str | None:
    """Returns the token in a file; None without a file. Raises ValueError if it is empty."""
    if path is None:
        return None
    token = path.read_text().strip()
    if not token:
        raise ValueError(f"BOTS_TOKEN_FILE: {path} is empty")
    return token
