"""Several processes on one port: each worker listens with SO_REUSEPORT, and the kernel distributes connections.

The parent serves only `/metrics`. It restarts a worker that ended by itself; a worker ends when its parent does.
"""

import logging
import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from bots_server.process.signals import stop_on

RESTART_SECONDS = 2.0  # between two starts of one worker, which may end at its start because Redis is away

log = logging.getLogger(__name__)

# Workers are fresh interpreters: the parent has threads, and gRPC does not survive a fork.
_context = multiprocessing.get_context("spawn")

Work = Callable[[Connection, threading.Event], None]


def reserve_port(host: str, port: int) -> socket.socket:
    """Returns a socket that reserves a port for the workers without accepting connections; port 0 picks a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reserved = socket.socket(family, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind((host.strip("[]"), port))
    return reserved


def when_listening(port: socket.socket, stopping: threading.Event, then: Callable[[], None]) -> None:
    """Calls `then`, in a thread, when a worker accepts connections on a reserved port, unless `stopping` is set."""

    def probe() -> None:
        while not stopping.wait(0.05):
            with socket.socket(port.family, socket.SOCK_STREAM) as connection:
                if connection.connect_ex(port.getsockname()) == 0:
                    then()
                    return

    threading.Thread(target=probe, name="announce", daemon=True).start()


def supervise(count: int, work: Work, connections: dict[str, Connection], stopping: threading.Event) -> None:
    """Keeps `count` workers running until `stopping` is set, then ends them.

    work:        the work of a worker; importable; returns when the event that it gets is set
    connections: filled with the parent's end of each worker's pipe, by the worker's number
    """
    workers: dict[str, SpawnProcess] = {}
    started: dict[str, float] = {}
    try:
        while not stopping.is_set():
            for number in map(str, range(count)):
                worker = workers.get(number)
                if worker is not None and worker.is_alive():
                    continue
                if time.monotonic() < started.get(number, -RESTART_SECONDS) + RESTART_SECONDS:
                    continue
                if worker is not None:
                    log.error("worker %s ended with status %s; starting it again", number, worker.exitcode)
                workers[number], connections[number] = _start(number, work)
                started[number] = time.monotonic()
            # Returns when a worker ends, or in time to see whether to stop.
            alive = [worker.sentinel for worker in workers.values() if worker.is_alive()]
            wait(alive, timeout=0.2) if alive else stopping.wait(0.2)
    finally:
        for worker in workers.values():
            worker.terminate()
        for worker in workers.values():
            worker.join()


def _start(number: str, work: Work) -> tuple[SpawnProcess, Connection]:
    parent_end, worker_end = _context.Pipe()
    worker = _context.Process(target=_work, args=(work, worker_end), name=f"worker-{number}")
    worker.start()
    worker_end.close()
    return worker, parent_end


def _work(work: Work, connection: Connection) -> None:
    stopping = threading.Event()
    stop_on((signal.SIGTERM,), stopping)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the parent too, which ends the workers
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow_parent() -> None:
        wait([parent.sentinel])
        stopping.set()

    threading.Thread(target=follow_parent, daemon=True).start()
    work(connection, stopping)
