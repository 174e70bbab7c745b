"""SIGTERM and SIGINT set an event, whatever the main thread is doing."""

import signal
import socket
import threading
from collections.abc import Collection


def stop_on(numbers: Collection[signal.Signals], stopping: threading.Event) -> None:
    """Makes each of these signals set `stopping`. Call it from the main thread.

    A handler in Python would not do: it runs in the main thread only, which may wait just then, or hold the lock that
    `stopping.set` needs. A byte in a socket is never lost.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno())
    for number in numbers:
        signal.signal(number, lambda *_: None)  # the wakeup byte is enough
    threading.Thread(target=_follow, args=(reading, writing, numbers, stopping), name="signals", daemon=True).start()


def _follow(
    reading: socket.socket, writing: socket.socket, numbers: Collection[signal.Signals], stopping: threading.Event
) -> None:
    while byte := reading.recv(1):  # never ends: `writing` stays open as long as this thread holds it
        if byte[0] in numbers:
            stopping.set()
