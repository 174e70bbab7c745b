"""Calls and forks exclude each other, for gRPC survives a fork only while no thread is inside it.

A fork waits until the calls under way have ended, at most `LONGEST_WAIT_SECONDS`; a call waits until the fork is over.
A child that was forked in another way (during a stream or a longer call, beside an asyncio client, or with
GRPC_ENABLE_FORK_SUPPORT=0) gets ForkedError from every call at once. Otherwise the child's clients connect anew.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bots.errors import ForkedError

LONGEST_WAIT_SECONDS = 10.0

ADVICE = (
    'start the process by "spawn" or "forkserver" (multiprocessing.get_context("spawn"), '
    'DataLoader(multiprocessing_context="spawn")), or fork before the first call'
)


class Guard:
    """Counts the calls of this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: dict[int, int] = {}  # thread -> calls under way
        self._forking = False
        self._used = False  # a call was made: gRPC has state that a fork copies
        self._unforkable = 0  # streams and asyncio channels
        self._unsafe = ""  # reason why the child of the fork under way cannot call
        self._broken = ""  # reason why this process cannot call

    @contextmanager
    def call(self) -> Iterator[None]:
        """Holds off forks. ForkedError: this process cannot call."""
        thread = threading.get_ident()
        with self._changed:
            self.check()
            while self._forking:
                self._changed.wait()
            self._used = True
            self._calls[thread] = self._calls.get(thread, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._calls[thread] -= 1
                if not self._calls[thread]:
                    del self._calls[thread]
                self._changed.notify_all()

    @contextmanager
    def unforkable(self) -> Iterator[None]:
        """While it is held, the child of a fork cannot call."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    def hold(self) -> None:
        """Makes the children of forks unable to call, until `let_go`. ForkedError: this process cannot call."""
        with self._changed:
            self.check()
            while self._forking:
                self._changed.wait()
            self._used = True
            self._unforkable += 1

    def let_go(self) -> None:
        """Ends a `hold`."""
        with self._changed:
            self._unforkable = max(0, self._unforkable - 1)  # a child has none of its parent's

    def check(self) -> None:
        """ForkedError: this process cannot call."""
        if self._broken:
            raise ForkedError(f"process {os.getpid()} was forked {self._broken}; {ADVICE}", code="FAILED_PRECONDITION")

    def before_fork(self) -> None:
        """Waits for the calls under way."""
        end = time.monotonic() + LONGEST_WAIT_SECONDS
        self._changed.acquire()
        while self._forking:
            self._changed.wait()
        self._forking = True
        self._unsafe = ""
        if self._used and os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "1").lower() in ("0", "false", "no"):
            self._unsafe = "with GRPC_ENABLE_FORK_SUPPORT=0 after a call of its parent"
        elif self._unforkable:
            self._unsafe = "while its parent had an open stream or an asyncio client"
        elif threading.get_ident() in self._calls:
            self._unsafe = "in the middle of a call of the same thread"
        else:
            while self._calls and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            if self._calls:
                self._unsafe = f"while a call of its parent lasted more than {LONGEST_WAIT_SECONDS:.0f} s"
        self._changed.release()

    def after_in_parent(self) -> None:
        """Lets calls go on."""
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def after_in_child(self) -> None:
        """Starts anew, unable to call if the fork was unsafe."""
        broken = self._broken or self._unsafe
        self.__init__()  # type: ignore[misc]  # the locks belong to threads that do not exist here
        self._broken = broken


GUARD = Guard()
os.register_at_fork(
    before=lambda: GUARD.before_fork(),
    after_in_parent=lambda: GUARD.after_in_parent(),
    after_in_child=lambda: GUARD.after_in_child(),
)
