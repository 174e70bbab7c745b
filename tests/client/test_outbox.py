"""What waits is delivered once, in order, whatever threads and processes do; in a file it survives the process."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

import bots
from bots import outbox as outbox_module
from bots.errors import ResourceExhaustedError
from bots.outbox import Outbox
from bots.outbox_file import OutboxFile
from bots.v1 import task_selection_pb2 as pb
from tests.client.recorder import UID, Recorder, fails, never, served
from tests.client.test_session import until

LANE = ("d", "r")


def test_what_waits_is_claimed_in_order_by_one() -> None:
    """While a caller delivers a lane, no other gets of it; a failed entry stays the first."""
    outbox = Outbox()
    first, second = (outbox.add(LANE, "report", bytes([n])) for n in range(2))
    assert outbox.claim(LANE, second) is None
    assert outbox.claim(LANE) is first
    assert outbox.claim(LANE) is None
    outbox.released(first, ResourceExhaustedError("full"))
    assert outbox.due_in(LANE) > 0
    assert outbox.claim(LANE) is first
    outbox.delivered(first)
    assert outbox.claim(LANE) is second
    outbox.refused(second, "no")
    assert (len(outbox), outbox.counts(LANE)) == (0, (1, 1))


def test_threads_deliver_everything_once() -> None:
    """Whoever adds and delivers at once, each entry is delivered once."""
    outbox = Outbox()
    delivered: list[bytes] = []

    def work(number: int) -> None:
        for entry in range(200):
            outbox.add(LANE, "report", f"{number}-{entry}".encode())
            while (claimed := outbox.claim(LANE)) is not None:
                delivered.append(claimed.payload)
                outbox.delivered(claimed)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(outbox) == 0
    assert sorted(delivered) == sorted(f"{n}-{e}".encode() for n in range(4) for e in range(200))
    for number in range(4):
        own = [payload for payload in delivered if payload.startswith(f"{number}-".encode())]
        assert own == [f"{number}-{entry}".encode() for entry in range(200)]


def test_the_outbox_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the bound the oldest report that is not under way is dropped, which is logged and counted."""
    monkeypatch.setattr(outbox_module, "MOST_ENTRIES", 3)
    outbox = Outbox()
    entries = [outbox.add(LANE, "report", bytes([n])) for n in range(3)]
    assert outbox.claim(LANE) is entries[0]
    with caplog.at_level(logging.WARNING, "bots"):
        outbox.add(LANE, "report", b"new")
    assert (outbox.pending(), outbox.counts(LANE)) == (3, (1, 0))
    assert "run d/r: a report that waited is dropped: too many wait" in caplog.text
    outbox.delivered(entries[0])
    assert outbox.claim(LANE) is entries[2]


def test_a_file_keeps_entries_and_their_age(tmp_path: Path) -> None:
    """A process that opens the file takes in what waits, in order; what was delivered is gone."""
    file = OutboxFile(tmp_path / "outbox")
    outbox = Outbox(lambda: file)
    done, _, _ = (outbox.add(LANE, "report", bytes([n])) for n in range(3))
    outbox.claim(LANE)
    outbox.delivered(done)
    outbox.close()
    entries = OutboxFile(tmp_path / "outbox").load()
    assert [(entry.lane, entry.kind, entry.payload) for entry in entries] == [
        (LANE, "report", b"\1"),
        (LANE, "report", b"\2"),
    ]
    assert all(0 <= time.monotonic() - entry.first_sent < 60 for entry in entries)


def test_processes_share_a_path(tmp_path: Path) -> None:
    """Each has a file of its own, and a process that starts takes in what ended processes left in any."""
    path = tmp_path / "outbox"
    first, second = OutboxFile(path), OutboxFile(path)
    Outbox(lambda: first).add(LANE, "report", b"first")
    Outbox(lambda: second).add(LANE, "report", b"second")
    assert sorted(file.name for file in tmp_path.glob("outbox*") if "-" not in file.name) == ["outbox", "outbox.1"]
    second.close()
    third = OutboxFile(path)
    assert [entry.payload for entry in third.load()] == [b"second"]
    first.close()
    third.close()
    assert sorted(entry.payload for entry in OutboxFile(path).load()) == [b"first", b"second"]


PROGRAM = """
import os, signal, sys, bots
client = bots.Client(sys.argv[1], timeout=0.3, job="j", outbox=sys.argv[2])
client.create_dataset("d", ids=[f"t{task}" for task in range(100)])
run = client.create_run("d", "r")
for step in range(5):
    run.select(4).report(1, 2, policy_step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_reports_survive_kill_9_and_the_restart_goes_on_without_the_service(recorder: Recorder, tmp_path: Path) -> None:
    """The next process knows the tasks from the file, trains on, and delivers what the first left, in order, once."""
    with served(Recorder()) as address:
        pass
    killed = subprocess.run([sys.executable, "-c", PROGRAM, address, tmp_path / "outbox"], timeout=60)
    assert killed.returncode == -9
    with bots.Client(address, timeout=0.3, job="j", outbox=tmp_path / "outbox") as client:
        run = client.run("d", "r")
        batch = run.select(4)
        assert batch.fallback
        assert batch.ids == [f"t{task}" for task in batch.tasks]
        batch.report(1, 2, policy_step=5)
        assert run.stats.reports_pending == 6
        with served(recorder, address):
            until(lambda: run.stats.reports_pending == 0)
        assert [call.request.policy_step for call in recorder.of("ReportOutcomes")] == [0, 1, 2, 3, 4, 5]
        assert len({call.request.request_id for call in recorder.of("ReportOutcomes")}) == 6
        assert all(call.request.request_age_seconds > 0 for call in recorder.of("ReportOutcomes"))


def test_what_an_earlier_process_left_is_delivered_without_a_report(recorder: Recorder, tmp_path: Path) -> None:
    """Making the client is enough."""
    with served(recorder) as address:
        with bots.Client(address, outbox=tmp_path / "outbox") as client:
            run = client.create_run("d", "r")
            recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
            assert run.report(["t1"], 1, 2) is None
            client.session.timeout = 0.1
        recorder.answers["ReportOutcomes"] = steady_report
        recorder.calls.clear()
        with bots.Client(address, outbox=tmp_path / "outbox"):
            until(lambda: len(recorder.of("ReportOutcomes")) == 1)


def steady_report(request: Any, context: grpc.ServicerContext) -> Message:
    return pb.ReportOutcomesResponse(version=1, run_uid=UID)


def test_a_path_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    """Not a silent loss."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="outbox"):
        bots.Client("127.0.0.1:1", outbox=tmp_path / "folder")


def test_a_flush_waits_for_what_another_thread_has_under_way(recorder: Recorder, run: bots.Run) -> None:
    """A report is pending until it is acknowledged; a flush beside its sender ends at its own deadline."""
    arrived = threading.Event()

    def slowly(request: Any, context: grpc.ServicerContext) -> Message:
        arrived.set()
        return never(request, context)

    recorder.answers["ReportOutcomes"] = slowly
    with ThreadPoolExecutor() as threads:
        sent = threads.submit(run.report, ["t1"], 1, 2)
        assert arrived.wait(30)
        with pytest.raises(bots.DeadlineExceededError):
            run.flush(0.2)
        assert run.stats.reports_pending == 1
        recorder.answers["ReportOutcomes"] = steady_report
        assert sent.result(30) is None
    run.flush(30)
    assert run.stats.reports_pending == 0
