"""SIGTERM and the like set an event, whatever the main thread is doing, and end the process within a time."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Collection


def stop_on(numbers: Collection[signal.Signals], stopping: threading.Event, *, seconds: float) -> None:
    """Makes each of these signals set `stopping`. Call it from the main thread.

    A second SIGINT ends the process and its workers immediately. So does the end of `seconds` after the first signal.

    A handler in Python would not do: it runs in the main thread only, which may wait just then, or hold the lock that
    `stopping.set` needs. A byte in a socket is never lost.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.detach())
    for number in numbers:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, lambda *_: None)  # the wakeup byte is enough

    def follow() -> None:
        end: float | None = None
        while end is None or time.monotonic() < end:
            reading.settimeout(None if end is None else max(0.0, end - time.monotonic()) + 0.001)
            try:
                number = reading.recv(1)[0]
            except TimeoutError:
                break
            if number == signal.SIGINT and stopping.is_set():
                break
            if number in numbers:
                stopping.set()
                end = end or time.monotonic() + seconds
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(1)

    threading.Thread(target=follow, name="signals", daemon=True).start()
