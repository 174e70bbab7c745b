"""One serving process: a gRPC server over a store, with health, reflection and metrics."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import add_TaskSelectionServiceServicer_to_server
from bots_server.api import messages
from bots_server.core.posterior import Posterior
from bots_server.core.summary import Summary, summarise
from bots_server.errors import Failure, RunReplaced
from bots_server.api.interceptor import CallInterceptor
from bots_server.telemetry.metrics import Metrics
from bots_server.runs.registry import Replicas
from bots_server.service.runs import current
from bots_server.service.servicer import TaskSelectionService
from bots_server.process.settings import Settings
from bots_server.store import Store

SERVICE = pb.DESCRIPTOR.services_by_name["TaskSelectionService"].full_name
MAX_MESSAGE_BYTES = 96 * 2**20  # posteriors of a million tasks by id, or a chunk of a dataset with ids
PROBE_SECONDS = 1.0

log = logging.getLogger(__name__)


class Server:
    """A server that is not started yet; `port` is where it will listen.

    store: where everything is kept; closed by whoever made it
    """

    def __init__(self, store: Store, settings: Settings, metrics: Metrics) -> None:
        self._store = store
        self._stopping = threading.Event()
        self._summarised: dict[str, tuple[Posterior, Summary]] = {}  # of the last scrape, by uid of the run
        self._replicas = Replicas(
            store, metrics, capacity=settings.max_replicas, idle_seconds=settings.replica_idle_seconds
        )
        # A watcher takes a thread for as long as it watches, so these come on top.
        threads = settings.threads + settings.max_streams
        self._grpc = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="calls"),
            interceptors=[CallInterceptor(metrics, read_token(settings.token_file))],
            options=[
                ("grpc.so_reuseport", int(settings.processes > 1)),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ],
        )
        service = TaskSelectionService(
            store, self._replicas, metrics, max_streams=settings.max_streams, stopping=self._stopping
        )
        add_TaskSelectionServiceServicer_to_server(service, self._grpc)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc)
        metrics.rpc_threads(threads)
        metrics.replicas(lambda: len(self._replicas.held()))
        metrics.export_runs(self._summaries)
        self.port = listen(self._grpc, settings)
        self._probe = threading.Thread(target=self._probe_store, name="probe", daemon=True)

    def start(self) -> None:
        """Starts to serve."""
        self._report_health()
        self._grpc.start()
        self._probe.start()

    def stop(self, grace_seconds: float) -> None:
        """Stops to accept calls, says so to the probes, and waits so long for the calls that are being served."""
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        self._grpc.stop(grace_seconds).wait()
        self._replicas.close()

    def _probe_store(self) -> None:
        while not self._stopping.wait(PROBE_SECONDS):
            self._report_health()

    def _report_health(self) -> None:
        """Says SERVING where the store answers, so that a balancer passes by a server that is cut off."""
        try:
            self._store.ping()
            status = health_pb2.HealthCheckResponse.SERVING
        except Failure as failure:
            log.warning("not serving: %s", failure)
            status = health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            self._health.set(service, status)

    def _summaries(self) -> Iterator[pb.RunSummary]:
        """Yields the runs in memory as they are in Redis now, or as they were seen last where Redis is away.

        So all servers say the same of a run, also one that no trainer has asked since.
        """
        away, summarised = False, dict[str, tuple[Posterior, Summary]]()
        for replica in self._replicas.held():
            try:
                view = replica.last_view() if away else replica.view()
            except RunReplaced:
                continue
            except Failure:  # each further one would wait as long, and the scrape has a deadline
                away, view = True, replica.last_view()
            if view is not None:
                posterior = view.posterior
                known = self._summarised.get(replica.run.uid)
                if known is None or known[0] is not posterior:  # most runs stand still between two scrapes
                    known = posterior, summarise(posterior, replica.dataset.tasks)
                summarised[replica.run.uid] = known
                run = current(replica.run, posterior)
                yield messages.summary_message(known[1], posterior, run, view.live_leases)
        self._summarised = summarised


def listen(server: grpc.Server, settings: Settings) -> int:
    """Returns the port that the server listens on. Raises OSError where it cannot have it."""
    address = f"{settings.host}:{settings.port}"
    try:
        if settings.tls_cert and settings.tls_key:
            pair = settings.tls_key.read_bytes(), settings.tls_cert.read_bytes()
            return server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: is the port taken?") from error


def read_token(path: Path | None) -> str | None:
    """Returns the token in a file; None where there is no file. Raises ValueError where it is empty."""
    if path is None:
        return None
    token = path.read_text().strip()
    if not token:
        raise ValueError(f"BOTS_TOKEN_FILE: {path} is empty")
    return token
