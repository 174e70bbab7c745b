"""Forks, spawns, pickles and signals: never a hang, never a crash."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bots
from tests.client.recorder import Recorder

FORKS = """
import os, sys, threading, bots
client = bots.Client(sys.argv[1], timeout=10)
client.create_dataset("d", size=100)
run = client.create_run("d", "r")
stop = threading.Event()
def busy():
    while not stop.is_set():
        run.select(4).report(1, 2)
threads = [threading.Thread(target=busy) for _ in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
codes = []
for _ in range(20):
    child = os.fork()
    if not child:
        batch = run.select(4)
        os._exit(batch.fallback or batch.report(1, 2) is None)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(sorted(set(codes)), len(run.select(2)))
"""


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_forks_and_calls_exclude_each_other(recorder: Recorder, address: str, threads: int) -> None:
    """However many threads are in calls, each child and the parent go on."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS, address, str(threads)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "[0] 2\n", done.stderr


NO_SUPPORT = """
import os, sys, bots
client = bots.Client(sys.argv[1], timeout=10)
client.get_dataset("d")
child = os.fork()
if not child:
    try:
        client.get_dataset("d")
    except bots.ForkedError as error:
        print(error, flush=True)
        os._exit(0)
    os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_without_grpcs_fork_support_the_child_fails_at_once(recorder: Recorder, address: str) -> None:
    """The message says what to do, instead of a hang beyond the deadline."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", NO_SUPPORT, address],
        env=os.environ | {"GRPC_ENABLE_FORK_SUPPORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "GRPC_ENABLE_FORK_SUPPORT=0" in done.stdout
    assert "spawn" in done.stdout
    assert time.monotonic() - began < 9


@pytest.mark.parametrize(
    "test",
    [
        "test_a_fork_waits_for_a_call_and_not_for_ever",
        "test_a_fork_during_a_stream_fails_at_once",
        "test_a_run_is_handed_to_a_new_process[spawn]",
        "test_a_run_is_handed_to_a_new_process[forkserver]",
        "test_a_run_is_handed_to_a_new_process[fork]",
    ],
)
def test_forks_of_a_process_that_calls(test: str) -> None:
    """Each in a process of its own: in one that has run other servers or forked before, gRPC may end a child."""
    test = f"{Path(__file__).with_name('forking.py')}::{test}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout


def test_copies_by_pickle_and_deepcopy_work(recorder: Recorder, run: bots.Run) -> None:
    """Batches report, runs select; reports that wait stay with the original."""
    batch = run.select(2)
    assert pickle.loads(pickle.dumps(batch)).report(1, 2) is not None
    for copied in (pickle.loads(pickle.dumps(run)), copy.deepcopy(run)):
        assert len(copied.select(3)) == 3
        assert copied.session.job == "tester"
    error = bots.UnavailableError("away", code="UNAVAILABLE", request_id="id")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code, again.request_id) == ("away", "UNAVAILABLE", "id")
