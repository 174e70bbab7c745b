"""Reports that wait are delivered once, in order, whatever threads and processes do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bots.outbox import Outbox
from bots.v1 import task_selection_pb2 as pb

THREADS = 4


def report(task: int) -> pb.ReportOutcomesRequest:
    return pb.ReportOutcomesRequest(tasks=[task])


def soon() -> float:
    """Returns a time that a busy machine reaches its goal before."""
    return time.monotonic() + 60


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_one_thread_delivers_at_a_time() -> None:
    """Reports keep their order: while one is under way no other is sent, and who waits for that waits no longer than
    told."""
    outbox = Outbox(9)
    for task in range(3):
        outbox.keep(report(task))
    sent: list[int] = []

    def send(report: pb.ReportOutcomesRequest) -> None:
        sent.extend(report.tasks)
        if len(sent) == 1:
            with ThreadPoolExecutor() as another:
                assert another.submit(outbox.deliver, send, time.monotonic() + 0.05).result(60) is False
            assert (sent, len(outbox)) == ([0], 3)

    assert outbox.deliver(send, soon()) is True
    assert (sent, len(outbox)) == ([0, 1, 2], 0)


def test_every_report_has_one_end(hasty_threads: None) -> None:
    """Threads that keep and deliver at once lose none: each report is delivered once, dropped and counted, or left."""
    for _ in range(100):
        outbox = Outbox(5)
        sent: list[int] = []

        def work(first: int, outbox: Outbox = outbox, sent: list[int] = sent) -> None:
            for task in range(first, first + 10):
                outbox.keep(report(task))
                if task % 2:
                    outbox.deliver(lambda report: sent.extend(report.tasks), soon())

        with ThreadPoolExecutor(THREADS) as threads:
            for done in [threads.submit(work, 10 * thread) for thread in range(THREADS)]:
                done.result(60)
        assert len(set(sent)) == len(sent)
        assert len(sent) + outbox.dropped + len(outbox) == 10 * THREADS


def test_what_is_under_way_is_not_dropped() -> None:
    """Beyond the bound the oldest report is dropped that nobody is sending."""
    outbox = Outbox(2)
    outbox.keep(report(0))
    outbox.keep(report(1))
    sent: list[int] = []

    def send(under_way: pb.ReportOutcomesRequest) -> None:
        if not sent:
            outbox.keep(report(2))
        sent.extend(under_way.tasks)

    assert outbox.deliver(send, soon()) is True
    assert (sent, outbox.dropped) == ([0, 2], 1)


def test_only_the_original_sends_what_it_keeps() -> None:
    """Pickled or forked, even while a report is under way, an outbox is empty and works."""
    program = """
import os, pickle, sys, time
from bots.outbox import Outbox
from bots.v1 import task_selection_pb2 as pb

def works(copy):
    empty = len(copy) == 0
    copy.keep(pb.ReportOutcomesRequest())
    return empty and copy.deliver(lambda report: None, time.monotonic() + 30) and len(copy) == 0

def send(report):
    assert works(pickle.loads(pickle.dumps(outbox)))
    child = os.fork()
    if not child:
        os._exit(0 if works(outbox) else 1)
    assert os.waitpid(child, 0)[1] == 0

outbox = Outbox(2)
outbox.keep(pb.ReportOutcomesRequest())
assert outbox.deliver(send, time.monotonic() + 60)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
