"""Tests that fork the process in which they run; `test_processes.py` runs each in one of its own.

As in a trainer, that process only calls: gRPC may end or block the child of one that also serves.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import bots
from bots import fork
from tests.bench.processes import server

# How a child ends that cannot call: with ForkedError, unless gRPC's own handler, which closes the channel in the child,
# ends it first (one time in five).
UNABLE = 7, -signal.SIGSEGV


@pytest.fixture
def client(redis_url: str) -> Iterator[bots.Client]:
    """A client of a server in another process."""
    with server(redis_url) as process, bots.Client(process.address, timeout=20) as client:
        yield client


def fork_and_call(client: bots.Client) -> int:
    """Returns the pid of a child that calls, and ends with 7 if that is a ForkedError, with 8 if it is none."""
    child = os.fork()
    if not child:
        try:
            client.get_dataset("d")
        except bots.ForkedError:
            os._exit(7)
        os._exit(8)
    return child


def test_a_fork_waits_for_a_call_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that lasts longer than a fork waits makes the child unable to call."""
    monkeypatch.setattr(fork, "LONGEST_WAIT_SECONDS", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        bots.Client(f"127.0.0.1:{silent.getsockname()[1]}", timeout=2, strict=True) as client,
    ):

        def ask() -> None:
            with pytest.raises(bots.DeadlineExceededError):
                client.get_dataset("d")

        thread = threading.Thread(target=ask)
        thread.start()
        with silent.accept()[0]:  # the call is in progress
            began = time.monotonic()
            child = fork_and_call(client)
            assert time.monotonic() - began < 1.5
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in UNABLE
            thread.join(30)


def test_a_fork_during_a_stream_fails_at_once(client: bots.Client, run: bots.Run) -> None:
    """A watch cannot be waited for."""
    watch = run.watch()
    next(watch)
    child = fork_and_call(client)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in UNABLE
    watch.close()


def select_in_a_child(run: bots.Run, answers: Any) -> None:
    batch = run.select(4)
    answers.put((batch.fallback, batch.report(1, 2), run.session.incarnation))


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_run_is_handed_to_a_new_process(run: bots.Run, method: str) -> None:
    """It connects anew, with the same settings and incarnation."""
    context: Any = multiprocessing.get_context(method)
    answers = context.Queue()
    child = context.Process(target=select_in_a_child, args=(run, answers))
    child.start()
    assert answers.get(timeout=60) == (False, 1, run.session.incarnation)
    child.join(60)
    assert child.exitcode == 0
