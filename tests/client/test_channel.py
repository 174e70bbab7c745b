"""The way to the service: deadlines, retries, balancing, pickling, forking, encryption."""

from __future__ import annotations

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
from bots import calls
from bots.target import OPTIONS, Target
from bots.token import Token
from tests.client.recorder import METHODS, Recorder, fails, never, served, steady

TLS = Path(__file__).parent / "tls"

DEADLINED: dict[str, Callable[[bots.Client], object]] = {
    "select": lambda client: client.run("d", "r").select(1),
    "report": lambda client: client.run("d", "r").report("t0", 1, 1),
    "posteriors": lambda client: client.run("d", "r").posteriors(timeout=0.3),
    "create_dataset": lambda client: client.create_dataset("d", size=1),
    "get_dataset": lambda client: client.get_dataset("d"),
}


@pytest.mark.parametrize("call", DEADLINED.values(), ids=DEADLINED)
def test_a_call_never_waits_longer_than_its_deadline(
    recorder: Recorder, address: str, call: Callable[[bots.Client], object]
) -> None:
    """A trainer never waits on the service longer than its deadline: a server that is silent is left after it."""
    recorder.answers = dict.fromkeys(METHODS, never)
    with bots.Client(address, timeout=0.3, strict=True) as client:
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
            client.get_dataset("d")
        assert time.monotonic() - began < 2


def test_a_call_waits_for_a_server_that_starts_within_the_deadline() -> None:
    """A server that is started again within the deadline is not noticed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    answered = threading.Event()
    with bots.Client(address, timeout=20) as client:

        def ask() -> None:
            client.get_dataset("d")
            answered.set()

        thread = threading.Thread(target=ask)
        thread.start()
        assert not answered.wait(0.3)
        with served(Recorder(), address):
            thread.join(20)
            assert answered.is_set()


def test_only_what_is_safe_is_repeated() -> None:
    """The retry policy is data; each method that is not repeated is a method of the proto."""
    assert set(METHODS) - calls.REPEATABLE == {"CreateDataset", "DeleteDataset", "DeleteRun", "DeleteCheckpoint"}
    assert (calls.UNAVAILABLE.attempts, calls.ABORTED.attempts) == (5, 8)


SAFE_CALLS: dict[str, Callable[[bots.Run], object]] = {
    "SelectBatch": lambda run: run.select(1, lease_seconds=60),
    "ReportOutcomes": lambda run: run.report(["t0"], 1, 1),
    "UpdateRun": lambda run: run.update(target=0.4),
    "RestoreRun": lambda run: run.restore(version=0),
}


@pytest.mark.parametrize("method", SAFE_CALLS)
@pytest.mark.parametrize("reason", ["", "STORE_UNAVAILABLE"], ids=["unreachable", "store away"])
def test_a_retry_carries_the_same_request_id(recorder: Recorder, address: str, method: str, reason: str) -> None:
    """What the client repeats after UNAVAILABLE is the same call, so that it is applied once."""
    working = recorder.answers.get(method)
    recorder.answers[method] = fails(grpc.StatusCode.UNAVAILABLE, reason, times=2, then=working)
    with bots.Client(address, strict=True) as client:
        SAFE_CALLS[method](client.run("d", "r"))
    ids = [call.request.request_id for call in recorder.of(method)]
    assert len(ids) == 3
    assert len(ids[0]) == 36
    assert len(set(ids)) == 1


def test_the_last_error_is_told_when_retries_reach_the_deadline(recorder: Recorder, address: str) -> None:
    """A store that is away is not taken for a service that cannot be reached."""
    recorder.answers["GetDataset"] = fails(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    with bots.Client(address, timeout=0.5) as client:
        began = time.monotonic()
        with pytest.raises(bots.UnavailableError) as caught:
            client.get_dataset("d")
        assert time.monotonic() - began < 1.5
        assert caught.value.reason == "STORE_UNAVAILABLE"
        assert client.session.availability.reachable


def test_calls_have_ids_of_their_own(recorder: Recorder, client: bots.Client) -> None:
    """Two free reports are two reports, unless an id is given."""
    run = client.run("d", "r")
    run.report(["t0"], 1, 1)
    run.report(["t0"], 1, 1)
    run.report(["t0"], 1, 1, request_id="mine")
    first, second, third = (call.request.request_id for call in recorder.of("ReportOutcomes"))
    assert first != second
    assert third == "mine"


@pytest.mark.parametrize("status", [grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND])
def test_other_failures_are_not_retried(recorder: Recorder, client: bots.Client, status: grpc.StatusCode) -> None:
    """A failure that is not UNAVAILABLE or ABORTED reaches the caller at once."""
    recorder.answers["ReportOutcomes"] = fails(status)
    with pytest.raises(bots.BotsError):
        client.run("d", "r").report(["t0"], 1, 1, rows=False)
    assert len(recorder.of("ReportOutcomes")) == 1


def test_a_deletion_is_not_retried(recorder: Recorder, client: bots.Client) -> None:
    """A deletion that worked and lost its answer must not come back as NOT_FOUND."""
    recorder.answers["DeleteRun"] = fails(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(bots.UnavailableError):
        client.delete_run("d", "r")
    assert len(recorder.calls) == 1


def test_the_token_is_sent_and_not_shown(recorder: Recorder, address: str) -> None:
    """A token goes with every call as a bearer token, and does not stand in the client's repr."""
    with bots.Client(address, token="s3cret") as client:
        client.get_dataset("d")
        client.create_dataset("d", size=1)
        client.run("d", "r").posteriors()
        assert "s3cret" not in repr(client)
    assert {call.metadata["authorization"] for call in recorder.calls} == {"Bearer s3cret"}


def test_a_client_is_shared_among_threads(recorder: Recorder, client: bots.Client) -> None:
    """Threads that ask for the first time at once share one connection."""
    channels = set()

    def ask() -> None:
        client.get_dataset("d")
        channels.add(client.session.channel)

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
        client.get_dataset("d")
    with pytest.raises(RuntimeError, match="closed"):
        client.get_dataset("d")


def test_a_trainer_stays_with_one_server_and_moves_when_it_dies() -> None:
    """So the server that gets the reports is the one that is asked next."""
    recorders = [steady(), steady()]
    with served(recorders[0]) as one, served(recorders[1]) as two, bots.Client([one, two], timeout=20) as client:
        run = client.run("d", "r")
        for _ in range(10):
            run.select(4).report(1, 2)
        first = int(not recorders[0].calls)
        assert recorders[1 - first].calls == []
    address = one if first == 0 else two
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{probe.getsockname()[1]}"
    recorder = steady()
    with served(recorder, address), bots.Client(f"{dead},{address}", timeout=20) as client:
        assert not client.run("d", "r").select(4).fallback


def test_trainers_are_spread_over_the_servers() -> None:
    """The order of several addresses is random."""
    target = Target.of([f"10.0.0.{host}:1" for host in range(1, 5)], Token(None), None, False)
    assert len({target.address() for _ in range(200)}) > 12


def test_a_proxy_is_ignored_unless_asked_for(recorder: Recorder, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """http_proxy is set in clusters for downloads; an error says that it was ignored."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with bots.Client(address) as client:
        client.get_dataset("d")
    with (
        bots.Client(address, timeout=0.3, proxy=True) as client,
        pytest.raises(bots.TemporaryError, match=r"through http_proxy=http://127\.0\.0\.1:9"),
    ):
        client.get_dataset("d")
    with (
        bots.Client("127.0.0.1:1", timeout=0.3) as client,
        pytest.raises(bots.TemporaryError, match="http_proxy is set and ignored"),
    ):
        client.get_dataset("d")


def test_the_connection_is_kept_alive_when_idle() -> None:
    """A connection that a NAT dropped between two steps does not cost the next selection."""
    options = dict(OPTIONS)
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.max_pings_without_data"] == 0


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost:50051", {"localhost:50051"}),
        ("dns:///bots:50051", {"dns:///bots:50051"}),
        ("unix:/tmp/bots.sock", {"unix:/tmp/bots.sock"}),
        (["bots:50051"], {"bots:50051"}),
        ("10.0.0.1:1,10.0.0.2:2", {"ipv4:10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.2:2,10.0.0.1:1"}),
        (["localhost:1", "127.0.0.1:2"], {"ipv4:127.0.0.1:1,127.0.0.1:2", "ipv4:127.0.0.1:2,127.0.0.1:1"}),
        ("[::1]:1, [::2]:2", {"ipv6:[::1]:1,[::2]:2", "ipv6:[::2]:2,[::1]:1"}),
    ],
)
def test_targets(target: Any, expected: set[str]) -> None:
    """One address goes to gRPC as it is, several become one target of IP addresses."""
    assert Target.of(target, Token(None), None, False).address() in expected


@pytest.mark.parametrize(
    "target", ["a:1,b:2", "https://host:50051", "grpc://host:50051", "10.0.0.1,10.0.0.2", ["10.0.0.1:1", "[::1]:1"], []]
)
def test_wrong_targets(target: Any) -> None:
    """Several names, which no deadline could look up, and mixtures are refused where the client is made."""
    with pytest.raises(ValueError, match="target"):
        bots.Client(target)


def test_tls(recorder: Recorder) -> None:
    """With TLS the certificate is checked, after a pickle and for several addresses too; an error names the cause."""
    certificate, key = (TLS / "certificate.pem").read_bytes(), (TLS / "key.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    with served(recorder, "127.0.0.1:0", credentials) as address:
        trusting = bots.Client(address, tls=bots.TLS(ca_file=TLS / "certificate.pem"))
        with pickle.loads(pickle.dumps(trusting)) as client:
            client.get_dataset("d")
        with bots.Client([address, "127.0.0.1:1"], tls=bots.TLS(ca_file=TLS / "certificate.pem")) as client:
            client.get_dataset("d")
        for tls, cause in ((bots.TLS(), "not of an authority"), (None, "may use TLS")):
            with bots.Client(address, tls=tls, timeout=1) as client, pytest.raises(bots.TemporaryError, match=cause):
                client.get_dataset("d")
    with served(recorder, "127.0.0.1:0") as address:
        tls = bots.TLS(ca_file=TLS / "certificate.pem")
        cause = "does not use TLS"
        with bots.Client(address, tls=tls, timeout=1) as client, pytest.raises(bots.TemporaryError, match=cause):
            client.get_dataset("d")
    assert len(recorder.calls) == 2


def test_file_that_is_not_pem_is_refused_before_a_connection() -> None:
    """The error of the first call names the option and the file, without waiting for the timeout."""
    client = bots.Client("localhost:1", tls=bots.TLS(ca_file=__file__))
    with client, pytest.raises(bots.InvalidArgumentError) as refused:
        client.get_dataset("d")
    assert str(refused.value) == f"ca_file: got {__file__!r}, must be a PEM file"


def test_command_says_once_that_a_certificate_is_not_trusted(recorder: Recorder) -> None:
    """The standard error of a process is one line, without gRPC's log of each attempt."""
    certificate, key = (TLS / "certificate.pem").read_bytes(), (TLS / "key.pem").read_bytes()
    with served(recorder, "127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)])) as address:
        command = [sys.executable, "-m", "bots.cli", "--server", address, "--tls", "--timeout", "1", "dataset", "list"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    (line,) = ended.stderr.splitlines()
    assert "not of an authority" in line
    assert ended.returncode == 69
