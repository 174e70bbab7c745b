"""`/metrics`, `/healthz` and `/livez`: pages on one port, also with several worker processes.

The parent serves the pages. At each scrape it asks every worker over a pipe for the samples of its registry, and adds
the label `process` (the worker's number). A sum over that label is the server's, and Prometheus needs one target.
"""

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

WORKER_SECONDS = 2.0  # below Prometheus' default scrape timeout of 10 s, also with several workers stuck
READ_SECONDS = 5.0  # without a byte of a request
REQUEST_SECONDS = 20.0  # from connecting to the end of the answer
MAX_CONNECTIONS = 16  # one more is closed

log = logging.getLogger(__name__)


@contextmanager
def serve_metrics(
    bound: socket.socket,
    registry: CollectorRegistry,
    *,
    healthy: Callable[[], bool],
    allowed: Callable[[str | None], bool] = lambda authorization: True,
    context: Callable[[], ssl.SSLContext] | None = None,
) -> Iterator[None]:
    """Serves the pages in threads. Takes over the socket, which is bound already.

    /metrics needs a client's certificate, if the context asks for it. Probes have nothing, so the others need nothing:
    /healthz is 200 if `healthy()`, else 503; /livez is 200.

    allowed: whether the authorization header of a request allows it to read /metrics
    context: the TLS of each connection; None: no TLS
    """
    server = _Pages(bound, registry, healthy, allowed, context)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Pages(ThreadingHTTPServer):
    """At most MAX_CONNECTIONS at once, each for at most REQUEST_SECONDS."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        bound: socket.socket,
        registry: CollectorRegistry,
        healthy: Callable[[], bool],
        allowed: Callable[[str | None], bool],
        context: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        super().__init__(bound.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.server_activate()
        self.registry, self.healthy, self._allowed, self._context = registry, healthy, allowed, context
        self._free = threading.Semaphore(MAX_CONNECTIONS)

    def allowed(self, connection: socket.socket, authorization: str | None) -> bool:
        """Returns whether the caller may read /metrics."""
        tls = connection if isinstance(connection, ssl.SSLSocket) else None
        if tls and tls.context.verify_mode != ssl.CERT_NONE and not tls.getpeercert():
            return False
        return self._allowed(authorization)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(READ_SECONDS)
        with request.dup() as same:
            limit = threading.Timer(REQUEST_SECONDS, same.shutdown, (socket.SHUT_RDWR,))
            limit.start()
            try:
                if self._context is not None:
                    request = self._context().wrap_socket(request, server_side=True)
                with request:
                    super().finish_request(request, client_address)
            finally:
                limit.cancel()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("metrics: a connection of %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Pages

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            serving = self.server.healthy()
            self._answer(200 if serving else 503, b"SERVING\n" if serving else b"NOT_SERVING\n")
        elif path == "/livez":
            self._answer(200, b"alive\n")
        elif path != "/metrics":
            self._answer(404, b"/metrics, /healthz and /livez are here\n")
        elif not self.server.allowed(self.connection, self.headers["Authorization"]):
            self._answer(401, b"the bearer token or the client certificate is missing or wrong\n")
        else:
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, encode(self.server.registry), content_type)

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Logs nothing: a scrape every 15 seconds tells nothing."""


def answer_scrapes(connection: Connection, registry: CollectorRegistry) -> None:
    """Answers the parent's scrapes, in a worker's thread that ends when the parent does."""

    def answer() -> None:
        with suppress(EOFError, OSError):  # the parent is gone
            while True:
                scrape = connection.recv()
                connection.send((scrape, list(registry.collect())))

    threading.Thread(target=answer, name="scrapes", daemon=True).start()


class Workers:
    """A collector of the workers' registries, for the parent."""

    def __init__(self, connections: Callable[[], Mapping[str, Connection]]) -> None:
        """`connections` returns the parent's end of each worker's pipe, by the worker's number."""
        self._connections = connections
        self._lock = threading.Lock()
        self._scrape = 0

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("bots_worker_up", "The worker process answered this scrape.", labels=("process",))
        families: dict[str, Metric] = {}
        with self._lock:
            self._scrape += 1
            for process, connection in self._connections().items():
                answer = self._ask(connection)
                up.add_metric((process,), answer is not None)
                for family in answer or ():
                    merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    merged.samples += [
                        one._replace(labels={**one.labels, "process": process}) for one in family.samples
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
