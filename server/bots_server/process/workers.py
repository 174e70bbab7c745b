"""Several processes on one port: each worker listens with SO_REUSEPORT, and the kernel distributes connections.

The parent serves only /metrics and /healthz. It restarts a worker that ended by itself or is silent; a worker ends when
its parent does.
"""

import ctypes
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from bots_server.process.signals import stop_on

RESTART_SECONDS = 2.0  # between two starts of one worker
SILENT_SECONDS = 180.0  # of a worker that hangs: longer than the longest wait for Redis
END_SECONDS = 20.0  # for a worker to end, before it is killed: longer than it drains
LOOK_SECONDS = 0.2

log = logging.getLogger(__name__)

# Workers are fresh interpreters: the parent has threads, and gRPC does not survive a fork.
_context = multiprocessing.get_context("spawn")


class Pulse(ctypes.Structure):
    """Memory that a worker shares with its parent: when it last was alive, and whether it served then."""

    _fields_ = (("time", ctypes.c_double), ("serving", ctypes.c_bool))  # time.monotonic(); 0: it has not served yet

    def beat(self, serving: bool) -> None:
        self.serving, self.time = serving, time.monotonic()


# Of a worker; importable. It returns when the event that it gets is set.
Work = Callable[[Connection, Pulse, threading.Event], None]


class WorkerFailed(Exception):
    """A worker ended before it served: its error is of a kind that a restart does not heal."""


class Worker:
    """A worker process, and the parent's ends of what connects them."""

    def __init__(self, number: str, work: Work) -> None:
        self.connection, worker_end = _context.Pipe()
        self.pulse: Pulse = _context.RawValue(Pulse)
        self.process = _context.Process(target=_work, args=(work, worker_end, self.pulse), name=f"worker {number}")
        self.process.start()
        self.started = time.monotonic()
        worker_end.close()

    @property
    def serving(self) -> bool:
        return self.process.is_alive() and bool(self.pulse.serving)

    def is_due(self, served: bool) -> bool:
        """Returns whether it has ended and is to be started again. Kills it if it is silent.

        served: whether any worker has; if not, WorkerFailed is raised
        """
        now, name = time.monotonic(), self.process.name
        if self.process.is_alive():
            if 0 < self.pulse.time < now - SILENT_SECONDS:
                log.error("%s was silent for %s s; killing it", name, SILENT_SECONDS)
                self.process.kill()
            return False
        if not served:
            raise WorkerFailed(f"{name} ended with status {self.process.exitcode} before it served")
        if now < self.started + RESTART_SECONDS:
            return False
        log.error("%s ended with status %s; starting it again", name, self.process.exitcode)
        return True


def supervise(
    count: int, work: Work, workers: dict[str, Worker], stopping: threading.Event, on_serving: Callable[[], object]
) -> None:
    """Keeps `count` workers running until `stopping` is set, then ends them.

    workers:    filled with the workers by their numbers
    on_serving: called once, when the first worker serves

    Raises WorkerFailed if a worker ends before any has served.
    """
    served = False
    try:
        while not stopping.wait(LOOK_SECONDS if served else LOOK_SECONDS / 10):
            for number in map(str, range(count)):
                if number not in workers or workers[number].is_due(served):
                    workers[number] = Worker(number, work)
            if not served and any(worker.pulse.time for worker in workers.values()):
                served = True
                on_serving()
        log.info("draining")
    finally:
        for worker in workers.values():
            worker.process.terminate()
        end = time.monotonic() + END_SECONDS
        for worker in workers.values():
            worker.process.join(max(0.0, end - time.monotonic()))
            worker.process.kill()
            worker.process.join()


def _work(work: Work, connection: Connection, pulse: Pulse) -> None:
    stopping = threading.Event()
    stop_on((signal.SIGTERM,), stopping, seconds=END_SECONDS)
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends it to the parent too, which ends the workers
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow_parent() -> None:
        parent.join()
        stopping.set()

    threading.Thread(target=follow_parent, daemon=True).start()
    work(connection, pulse, stopping)
