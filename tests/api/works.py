"""What workers do in tests of their parent; in a module of its own, because each worker imports it."""

import signal
import threading
import time
from multiprocessing.connection import Connection

from bots_server.process.workers import Pulse


def fail(connection: Connection, pulse: Pulse, stopping: threading.Event) -> None:
    """Ends before it serves."""
    raise SystemExit(7)


def hang(connection: Connection, pulse: Pulse, stopping: threading.Event) -> None:
    """Serves, and then neither works nor ends."""
    pulse.beat(True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    time.sleep(600)
