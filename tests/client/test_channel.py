"""The way to the service: deadlines, retries, balancing, pickling, forking, encryption."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import bots
from bots import channel
from bots.channel import resolve
from tests.client.recorder import METHODS, Recorder, fails, never, served

TLS = Path(__file__).parent / "tls"

DEADLINED: dict[str, Callable[[bots.Client], object]] = {
    "select": lambda client: client.run("d", "r").select(1),
    "report": lambda client: client.run("d", "r").report(0, 1, 1),
    "posteriors": lambda client: client.run("d", "r").posteriors(timeout=0.3),
    "create_dataset": lambda client: client.create_dataset("d", size=1),
    "list_datasets": lambda client: client.list_datasets(),
}


@pytest.mark.parametrize("call", DEADLINED.values(), ids=DEADLINED)
def test_a_call_never_waits_longer_than_its_deadline(
    recorder: Recorder, address: str, call: Callable[[bots.Client], object]
) -> None:
    """A trainer never waits on the service longer than its deadline: a server that is silent is left after it."""
    recorder.answers = dict.fromkeys(METHODS, never)
    with bots.Client(address, timeout=0.3) as client:
        began = time.monotonic()
        with pytest.raises(bots.DeadlineExceededError):
            call(client)
        assert 0.25 < time.monotonic() - began < 2
    # 60 s for a million tasks come on top for an upload.
    assert all(call.seconds is not None and call.seconds < 0.4 for call in recorder.calls)


def test_a_call_never_waits_longer_than_its_deadline_where_nobody_listens() -> None:
    """A trainer never waits on the service longer than its deadline: nor for a connection."""
    with bots.Client("127.0.0.1:1", timeout=0.3) as client:
        began = time.monotonic()
        with pytest.raises(bots.TemporaryError):
            client.list_datasets()
        assert time.monotonic() - began < 2


def test_a_call_waits_for_a_server_that_starts_within_the_deadline() -> None:
    """A server that is started again within the deadline is not noticed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    answered = threading.Event()
    with bots.Client(address, timeout=20) as client:

        def ask() -> None:
            client.list_datasets()
            answered.set()

        thread = threading.Thread(target=ask)
        thread.start()
        assert not answered.wait(0.3)
        with served(Recorder(), address):
            thread.join(20)
            assert answered.is_set()


def test_every_method_is_repeatable_or_not() -> None:
    """For each RPC of the proto it is said whether a repeat is safe."""
    assert sorted(channel.REPEATABLE + channel.NOT_REPEATED) == sorted(METHODS)


def test_only_unavailable_is_retried() -> None:
    """The retry policy is data: UNAVAILABLE alone, methods that are safe to repeat alone."""
    options = dict(channel.OPTIONS)
    (policy,) = json.loads(options["grpc.service_config"])["methodConfig"]
    assert policy["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert {name["method"] for name in policy["name"]} == set(channel.REPEATABLE)


SAFE_CALLS: dict[str, Callable[[bots.Run], object]] = {
    "SelectBatch": lambda run: run.select(1, lease_seconds=60),
    "ReportOutcomes": lambda run: run.report([0], 1, 1),
    "UpdateRun": lambda run: run.update(target=0.4),
    "RestoreRun": lambda run: run.restore(version=0),
}


@pytest.mark.parametrize("method", SAFE_CALLS)
def test_a_retry_carries_the_same_request_id(recorder: Recorder, client: bots.Client, method: str) -> None:
    """What the client repeats after UNAVAILABLE is the same call, so that it is applied once."""
    recorder.answers[method] = fails(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", times=2)
    SAFE_CALLS[method](client.run("d", "r"))
    requests = [call.request for call in recorder.of(method)]
    assert len(requests) == 3
    assert len(requests[0].request_id) == 36
    assert requests == [requests[0]] * 3


def test_calls_of_ones_own_have_ids_of_their_own(recorder: Recorder, client: bots.Client) -> None:
    """Two reports are two reports: each call gets a fresh request_id, unless one is given."""
    run = client.run("d", "r")
    run.report([0], 1, 1)
    run.report([0], 1, 1)
    run.report([0], 1, 1, request_id="mine")
    first, second, third = (call.request.request_id for call in recorder.of("ReportOutcomes"))
    assert first < second
    assert third == "mine"


@pytest.mark.parametrize("status", [grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND])
def test_other_failures_are_not_retried(recorder: Recorder, client: bots.Client, status: grpc.StatusCode) -> None:
    """A failure that is not UNAVAILABLE reaches the caller at once."""
    recorder.answers["ReportOutcomes"] = fails(status)
    with pytest.raises(bots.BotsError):
        client.run("d", "r").report([0], 1, 1)
    assert len(recorder.calls) == 1


def test_a_deletion_is_not_retried(recorder: Recorder, client: bots.Client) -> None:
    """A deletion that worked and lost its answer must not come back as NOT_FOUND."""
    recorder.answers["DeleteRun"] = fails(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(bots.UnavailableError):
        client.delete_run("d", "r")
    assert len(recorder.calls) == 1


def test_a_large_report_is_retried_too(recorder: Recorder, client: bots.Client) -> None:
    """The largest report that there is (100,000 outcomes by id) is kept for a retry."""
    recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.UNAVAILABLE, times=1)
    ids = [f"{task:032}" for task in range(70_000)]
    client.run("d", "r").report(ids, 1, 1)
    assert [len(call.request.ids) for call in recorder.calls] == [70_000, 70_000]


def test_the_token_is_sent_and_not_shown(recorder: Recorder, address: str) -> None:
    """A token goes with every call as a bearer token, and does not stand in the client's repr."""
    with bots.Client(address, token="s3cret") as client:
        client.list_datasets()
        client.create_dataset("d", size=1)
        client.run("d", "r").posteriors()
        assert "s3cret" not in repr(client)
    assert {call.metadata["authorization"] for call in recorder.calls} == {"Bearer s3cret"}


def test_a_client_and_its_runs_can_be_pickled(recorder: Recorder, client: bots.Client) -> None:
    """A pickled client or run connects anew where it is loaded, with the same settings."""
    run = client.run("d", "r")
    batch = run.select(1)
    assert pickle.loads(pickle.dumps(run)).select(2).run.client.job == "tester"
    assert pickle.loads(pickle.dumps(batch)).release() == 0
    assert [call.request.batch_size for call in recorder.of("SelectBatch")] == [1, 2]


def ask_in_a_child(client: bots.Client, answers: Any) -> None:
    client.list_datasets()
    answers.put(os.getpid())


def test_a_client_works_after_a_fork(recorder: Recorder, client: bots.Client) -> None:
    """A forked process (a data loader's worker) goes on with the client it was born with, and so does its parent."""
    program = """
import os, sys, bots
client = bots.Client(sys.argv[1], timeout=30)
client.list_datasets()
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        client.list_datasets()
        os._exit(0)
    children.append(child)
client.list_datasets()
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""
    target = client._channel.target
    done = subprocess.run([sys.executable, "-c", program, target], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(recorder.of("ListDatasets")) == 5


def test_a_client_works_in_a_spawned_process(recorder: Recorder, client: bots.Client) -> None:
    """A client is handed to a new process as an argument."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=ask_in_a_child, args=(client, answers))
    child.start()
    assert answers.get(timeout=60) == child.pid
    child.join(60)
    assert child.exitcode == 0


def test_a_client_is_shared_among_threads(recorder: Recorder, client: bots.Client) -> None:
    """Threads that ask for the first time at once share one connection."""
    channels = set()

    def ask() -> None:
        client.list_datasets()
        channels.add(id(client._channel.stub))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(recorder.calls) == 8
    assert len(channels) == 1


def test_a_closed_client_says_so(recorder: Recorder, address: str) -> None:
    """After `close`, and after the `with` block, a call is a RuntimeError."""
    with bots.Client(address) as client:
        client.list_datasets()
    with pytest.raises(RuntimeError, match="closed"):
        client.list_datasets()


def test_calls_go_round_robin_over_the_servers() -> None:
    """With several addresses every server gets its share, and when one is away the others answer."""
    first, second = Recorder(), Recorder()
    with served(first) as one:
        with served(second) as two, bots.Client([one, two], timeout=20) as client:
            deadline = time.monotonic() + 20
            while not (first.calls and second.calls):
                assert time.monotonic() < deadline
                client.list_datasets()
            before = len(first.calls), len(second.calls)
            for _ in range(10):
                client.list_datasets()
            assert (len(first.calls) - before[0], len(second.calls) - before[1]) == (5, 5)
        with bots.Client(f"{one},{two}", timeout=20) as client:
            for _ in range(4):
                client.list_datasets()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost:50051", "localhost:50051"),
        ("dns:///bots:50051", "dns:///bots:50051"),
        ("unix:/tmp/bots.sock", "unix:/tmp/bots.sock"),
        (["bots:50051"], "bots:50051"),
        ("10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        (["localhost:1", "127.0.0.1:2"], "ipv4:127.0.0.1:1,127.0.0.1:2"),
        ("[::1]:1, [::2]:2", "ipv6:[::1]:1,[::2]:2"),
    ],
)
def test_targets(target: Any, expected: str) -> None:
    """One address goes to gRPC as it is, several become one target of IP addresses."""
    assert resolve(target) == expected


@pytest.mark.parametrize("target", ["a:1,b:2", "10.0.0.1,10.0.0.2", ["10.0.0.1:1", "[::1]:1"], []])
def test_wrong_targets(target: Any) -> None:
    """Several names, which no deadline could look up, and mixtures are refused where the client is made."""
    with pytest.raises(ValueError, match="target"):
        bots.Client(target)


def test_tls(recorder: Recorder) -> None:
    """With TLS the server's certificate is checked, also for a client that was pickled; without it nothing is said."""
    certificate, key = (TLS / "certificate.pem").read_bytes(), (TLS / "key.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    with served(recorder, "localhost:0", credentials) as address:
        trusting = bots.Client(address, tls=bots.TLS(ca_file=TLS / "certificate.pem"))
        with pickle.loads(pickle.dumps(trusting)) as client:
            client.list_datasets()
        for tls in (bots.TLS(), None):
            with bots.Client(address, tls=tls, timeout=0.5) as client, pytest.raises(bots.TemporaryError):
                client.list_datasets()
    assert len(recorder.calls) == 1
