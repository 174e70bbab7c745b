"""The proxy passes what it is given, and fails as it is told."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.proxy import HOST, Proxy, proxy
from tests.valkey import wait_until


class Upper(socketserver.StreamRequestHandler):
    """Answers each line in capitals, and remembers it."""

    def handle(self) -> None:
        for line in self.rfile:
            self.server.heard.append(line)  # type: ignore[attr-defined]
            self.wfile.write(line.upper())


@contextmanager
def upper() -> Iterator[tuple[Proxy, list[bytes]]]:
    """Yields a proxy to a server, and the lines that the server has heard."""
    with socketserver.ThreadingTCPServer((HOST, 0), Upper) as server:
        server.daemon_threads = True
        server.heard = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with proxy(server.server_address[1]) as link:
                yield link, server.heard  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


def ask(connection: socket.socket, line: bytes) -> bytes:
    connection.sendall(line)
    return connection.recv(100)


def connect(link: Proxy) -> socket.socket:
    return socket.create_connection((HOST, link.port), timeout=10)


def test_it_passes_both_ways() -> None:
    """What goes in comes out, whatever its size."""
    with upper() as (link, _), connect(link) as connection:
        line = b"a" * 300_000 + b"\n"
        connection.sendall(line)
        assert connection.makefile("rb").readline() == line.upper()


def test_answers_are_lost_and_requests_are_not() -> None:
    """While it loses answers the server hears everything, and the caller's connection is reset in the end."""
    with upper() as (link, heard), connect(link) as connection:
        assert ask(connection, b"one\n") == b"ONE\n"
        losing = threading.Thread(target=link.lose_answers, args=(0.3,))
        losing.start()
        wait_until(lambda: link.losing, "it loses")
        with pytest.raises(ConnectionResetError):
            ask(connection, b"two\n")
        losing.join()
        assert heard == [b"one\n", b"two\n"]
        with connect(link) as another:
            assert ask(another, b"three\n") == b"THREE\n"


def test_it_delays_holds_and_cuts() -> None:
    """An answer comes late by the delay; nothing passes while it holds; a cut is seen as a reset."""
    with upper() as (link, _), connect(link) as connection:
        link.delay_seconds = 0.2
        began = time.monotonic()
        assert ask(connection, b"one\n") == b"ONE\n"
        assert time.monotonic() - began >= 0.2
        link.delay_seconds, link.holding = 0.0, True
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            ask(connection, b"two\n")
        link.holding = False
        connection.settimeout(10)
        assert connection.recv(100) == b"TWO\n"
        link.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_it_refuses_and_changes_its_upstream() -> None:
    """A refused connection is reset; one to nobody too; a new upstream serves new connections."""
    with upper() as (link, _), upper() as (other, heard):
        link.refusing = True
        with pytest.raises(ConnectionResetError), connect(link) as connection:
            ask(connection, b"one\n")
        link.refusing, link.upstream = False, other.port
        with connect(link) as connection:
            assert ask(connection, b"two\n") == b"TWO\n"
        assert heard == [b"two\n"]
