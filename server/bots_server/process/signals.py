"""SIGTERM and SIGINT set an event, whatever the main thread is doing."""

import signal
import socket
import threading
from collections.abc import Collection


def stop_on(numbers: Collection[signal.Signals], stopping: threading.Event) -> None:
    """Has each of these signals set `stopping`; to be called from the main thread.

    Not by a handler in Python: that runs in the main thread alone, which does not come to it where the signal arrives
    just before a wait begins, and may hold the very lock that `stopping.set` needs. A byte in a socket is never lost.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno())
    for number in numbers:
        signal.signal(number, lambda *_: None)  # the byte is all
    threading.Thread(target=_follow, args=(reading, writing, numbers, stopping), name="signals", daemon=True).start()


def _follow(
    reading: socket.socket, writing: socket.socket, numbers: Collection[signal.Signals], stopping: threading.Event
) -> None:
    while byte := reading.recv(1):  # for ever: `writing` is open as long as it is held here
        if byte[0] in numbers:
            stopping.set()
