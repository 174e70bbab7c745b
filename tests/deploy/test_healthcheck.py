"""/healthz and the health check of the container, with TLS and without, and what the pages' port withstands."""

import contextlib
import select
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from bots_server.process import address
from bots_server.process.health import complaint
from bots_server.process.tls import Certificates
from bots_server.telemetry import scrape

TLS = Path(__file__).parents[1] / "client" / "tls"  # a certificate of localhost, signed by itself
PAIR = Certificates(TLS / "certificate.pem", TLS / "key.pem")
MUTUAL = Certificates(TLS / "certificate.pem", TLS / "key.pem", TLS / "certificate.pem")


@contextlib.contextmanager
def pages(
    *,
    host: str = "127.0.0.1",
    healthy: Callable[[], bool] = lambda: True,
    token: str = "",
    context: Callable[[], ssl.SSLContext] | None = None,
) -> Iterator[int]:
    """Yields the port of the pages."""
    registry = CollectorRegistry()
    Counter("answers", "Answers.", registry=registry).inc(42)
    bound = address.bind(host, 0, "--metrics-port")
    port = bound.getsockname()[1]

    def allowed(authorization: str | None) -> bool:
        return not token or authorization == f"Bearer {token}"

    with scrape.serve_metrics(bound, registry, healthy=healthy, allowed=allowed, context=context):
        yield port


def read(url: str, token: str = "", context: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Returns the status and the body of a page."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def trusting(client: bool = False) -> ssl.SSLContext:
    """Returns the TLS of a caller, with a certificate of its own if `client`."""
    context = ssl.create_default_context(cafile=TLS / "certificate.pem")
    if client:
        context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    return context


def test_healthz_says_whether_the_server_serves() -> None:
    """/healthz is 200 if the server serves and 503 if not, and the container's check says what it answered."""
    serving = [True]
    with pages(healthy=lambda: serving[0]) as port:
        assert read(f"http://127.0.0.1:{port}/healthz") == (200, "SERVING\n")
        assert complaint("127.0.0.1", port, tls=False) is None
        serving[0] = False
        assert read(f"http://127.0.0.1:{port}/healthz") == (503, "NOT_SERVING\n")
        assert complaint("127.0.0.1", port, tls=False) == f"127.0.0.1:{port}: NOT_SERVING"
        assert read(f"http://127.0.0.1:{port}/other")[0] == 404
    assert "ConnectionRefused" in (complaint("127.0.0.1", port, tls=False) or "")


def test_healthz_needs_no_name_and_no_certificate() -> None:
    """With TLS, and with mutual TLS, a probe has neither the server's name nor a certificate, and is answered."""
    for pair in (PAIR, MUTUAL):
        with pages(context=pair.context, token="s3cret") as port:
            assert complaint("127.0.0.1", port, tls=True) is None
            assert complaint("127.0.0.1", port, tls=False) is not None


def test_metrics_need_the_token_and_the_certificate() -> None:
    """/metrics is answered with the token, and to a client with a certificate if the server asks for one."""
    with pages(token="s3cret") as port:
        url = f"http://127.0.0.1:{port}/metrics"
        assert read(url)[0] == 401
        assert read(url, "s3cret?")[0] == 401
        status, text = read(url, "s3cret")
        assert (status, "answers_total 42.0" in text) == (200, True)
    with pages(context=MUTUAL.context) as port:
        url = f"https://localhost:{port}/metrics"
        assert read(url, context=trusting())[0] == 401
        assert read(url, context=trusting(client=True))[0] == 200
        assert read(f"https://localhost:{port}/healthz", context=trusting())[0] == 200


def test_wildcards_and_ipv6_are_addresses_of_the_pages() -> None:
    """`0.0.0.0` and `::` answer over both versions of IP; `[::1]` is the same as `::1`."""
    for host in ("0.0.0.0", "::"):
        with pages(host=host) as port:
            assert read(f"http://127.0.0.1:{port}/healthz")[0] == 200
            assert read(f"http://[::1]:{port}/healthz")[0] == 200
            assert complaint(host, port, tls=False) is None
    assert address.resolve("[::1]") == address.resolve("::1") == ["::1"]


def test_half_sent_requests_are_closed_and_take_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections beyond the limit are closed at once, and silent or slow ones after a time, with TLS and without."""
    monkeypatch.setattr(scrape, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(scrape, "READ_SECONDS", 0.2)
    monkeypatch.setattr(scrape, "REQUEST_SECONDS", 0.5)
    for context in (None, PAIR.context):
        with pages(context=context) as port, contextlib.ExitStack() as stack:
            held = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(9)]
            for connection in held:
                with contextlib.suppress(OSError):  # it may be closed already
                    connection.sendall(b"GET /met")
            for connection in held:
                with contextlib.suppress(ConnectionResetError):
                    while connection.recv(100):
                        pass
            with socket.create_connection(("127.0.0.1", port), 10) as slow, contextlib.suppress(OSError):
                while True:  # a byte from time to time does not help
                    slow.sendall(b"x")
                    if slow in select.select([slow], [], [], 0.05)[0] and not slow.recv(100):
                        break
            assert complaint("127.0.0.1", port, tls=context is not None) is None
