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
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from bots_server.process.signals import stop_on

RESTART_SECONDS = 2.0  # between two starts of one worker
SILENT_SECONDS = 90.0  # of a worker that hangs: longer than the longest wait for Redis
END_SECONDS = 20.0  # for a worker to end, before it is killed: longer than it drains

log = logging.getLogger(__name__)

# Workers are fresh interpreters: the parent has threads, and gRPC does not survive a fork.
_context = multiprocessing.get_context("spawn")


class Pulse(ctypes.Structure):
    """Memory that a worker shares with its parent: when it last was alive, and whether it served then."""

    _fields_ = (("time", ctypes.c_double), ("serving", ctypes.c_bool))  # time.monotonic(); 0: it has not served yet

    def beat(self, serving: bool) -> None:
        self.serving, self.time = serving, time.monotonic()


Work = Callable[[Connection, Pulse, threading.Event], None]


@dataclass
class Worker:
    """A worker process, and the parent's ends of what connects them."""

    process: SpawnProcess
    connection: Connection
    pulse: Pulse
    started: float

    @property
    def serving(self) -> bool:
        return self.process.is_alive() and bool(self.pulse.serving)


class WorkerFailed(Exception):
    """A worker ended before it served: its error is of a kind that a restart does not heal."""


def supervise(
    count: int, work: Work, workers: dict[str, Worker], stopping: threading.Event, on_serving: Callable[[], object]
) -> None:
    """Keeps `count` workers running until `stopping` is set, then ends them.

    work:       the work of a worker; importable; returns when the event that it gets is set
    workers:    filled with the workers by their numbers
    on_serving: called once, when the first worker serves

    Raises WorkerFailed if a worker ends before any has served.
    """
    served = False
    try:
        while not stopping.is_set():
            for number in map(str, range(count)):
                worker = workers.get(number)
                if worker is not None and not _ended(number, worker, served):
                    continue
                workers[number] = _start(number, work)
            if not served and any(worker.pulse.time for worker in workers.values()):
                served = True
                on_serving()
            # Returns when a worker ends, or in time to see whether to stop.
            alive = [worker.process.sentinel for worker in workers.values() if worker.process.is_alive()]
            wait(alive, timeout=0.2 if served else 0.02) if alive else stopping.wait(0.2)
        log.info("draining")
    finally:
        for worker in workers.values():
            worker.process.terminate()
        end = time.monotonic() + END_SECONDS
        for worker in workers.values():
            worker.process.join(max(0.0, end - time.monotonic()))
            worker.process.kill()
            worker.process.join()


def _ended(number: str, worker: Worker, served: bool) -> bool:
    """Returns whether a worker is to be started again. Kills one that is silent."""
    now = time.monotonic()
    if worker.process.is_alive():
        if worker.pulse.time and now > worker.pulse.time + SILENT_SECONDS:
            log.error("worker %s was silent for %s s; killing it", number, SILENT_SECONDS)
            worker.process.kill()
        return False
    if not served:
        raise WorkerFailed(f"worker {number} ended with status {worker.process.exitcode} before it served")
    if now < worker.started + RESTART_SECONDS:
        return False
    log.error("worker %s ended with status %s; starting it again", number, worker.process.exitcode)
    return True


def _start(number: str, work: Work) -> Worker:
    parent_end, worker_end = _context.Pipe()
    pulse: Pulse = _context.RawValue(Pulse)
    process = _context.Process(target=_work, args=(work, worker_end, pulse), name=f"worker-{number}")
    process.start()
    worker_end.close()
    return Worker(process, parent_end, pulse, time.monotonic())


def _work(work: Work, connection: Connection, pulse: Pulse) -> None:
    stopping = threading.Event()
    stop_on((signal.SIGTERM,), stopping, seconds=END_SECONDS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the parent too, which ends the workers
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow_parent() -> None:
        wait([parent.sentinel])
        stopping.set()

    threading.Thread(target=follow_parent, daemon=True).start()
    work(connection, pulse, stopping)
