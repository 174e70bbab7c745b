"""`bots-server` as a process: it starts with nothing given, says where it listens, drains, and has its state back."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server.process.main import GRACE_SECONDS
from tests.api.callers import write
from tests.api.service import Run, dataset_parts, reason_of
from tests.valkey import valkey

SECONDS = 60


@contextlib.contextmanager
def started(*flags: str, env: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yields a `bots-server` process and its address; kills it at the end, whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bots_server", "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.match(r"listening on (\S+)", line):
                yield process, found[1]
                break
        else:
            assert process.stderr is not None
            pytest.fail(process.stderr.read())
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def tasks_policy(address: str) -> Iterator[Run]:
    """Yields the run `policy` of the dataset `tasks`, created if it is not there."""
    with grpc.insecure_channel(address) as channel:
        stub = TaskSelectionServiceStub(channel)
        header, chunk = dataset_parts("tasks", 100)
        parts = [pb.CreateDatasetRequest(header=header), pb.CreateDatasetRequest(chunk=chunk)]
        stub.CreateDataset(iter(parts), timeout=SECONDS, wait_for_ready=True)
        request = pb.CreateRunRequest(dataset="tasks", name="policy")
        yield Run(stub, stub.CreateRun(request, timeout=SECONDS).run.ref)


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> None:
    process.send_signal(number)
    process.wait(SECONDS)


def valkeys(data_dir: Path) -> list[int]:
    """Returns the processes that work in or for a data directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if str(data_dir).encode() in command or os.readlink(entry / "cwd").startswith(str(data_dir)):
                    found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_gone(data_dir: Path) -> None:
    wait_until(lambda: not valkeys(data_dir))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_state_outlives_the_server_and_nothing_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    """A server that ends, or is killed, leaves no process, and the next one has all that it acknowledged."""
    with started("--data-dir", str(tmp_path), "--durability", "fsync") as (process, address):
        with tasks_policy(address) as run:
            for _ in range(5):
                run.report([1, 2], [1, 2])
        end(process, number)
        assert process.returncode == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_until_gone(tmp_path)
    with started("--data-dir", str(tmp_path)) as (process, address):
        with tasks_policy(address) as run:
            assert run.info().version == 5
        end(process)
    wait_until_gone(tmp_path)


def test_a_signal_is_heard_whatever_the_main_thread_does() -> None:
    """A signal sets the event also where the main thread does not run: as when it comes just before a wait begins."""
    program = """
import os, signal, sys, threading
from bots_server.process.signals import stop_on
stopping = threading.Event()
stop_on((signal.SIGTERM,), stopping, seconds=60)
threading.Thread(target=lambda: (stopping.wait(), os._exit(7))).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # of the main thread: the others take it
print("ready", flush=True)
threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 7
        finally:
            process.kill()


def test_a_server_of_nohup_outlives_its_terminal() -> None:
    """SIGHUP stays ignored if it was."""
    program = """
import os, signal, threading
from bots_server.process.signals import stop_on
stopping = threading.Event()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
stop_on((signal.SIGTERM, signal.SIGHUP), stopping, seconds=60)
os.kill(os.getpid(), signal.SIGHUP)
assert not stopping.wait(0.1)
os.kill(os.getpid(), signal.SIGTERM)
assert stopping.wait(60)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=SECONDS).returncode == 0


def test_a_wrong_setting_stops_the_start_and_names_the_variable(tmp_path: Path) -> None:
    """A wrong value is refused before anything starts, with the variable, the flag and the rule."""
    finished = subprocess.run(
        [sys.executable, "-m", "bots_server", "--data-dir", str(tmp_path / "data")],
        env={**os.environ, "BOTS_PROCESSES": "0"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert finished.returncode == 1
    assert "BOTS_PROCESSES (--processes): got '0', must be greater than or equal to 1" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_server_ends_with_its_private_valkey(tmp_path: Path, processes: str) -> None:
    """Where the private Valkey dies, the server ends with an error, so that whoever keeps it running starts both."""
    with started("--data-dir", str(tmp_path), "--processes", processes) as (process, _):
        pid = int((tmp_path / "valkey.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        assert process.wait(SECONDS) == 1
        assert process.stderr is not None
        assert "the private Valkey ended by itself" in process.stderr.read()


def test_a_server_ends_if_the_socket_of_its_private_valkey_is_removed(tmp_path: Path) -> None:
    """As a cleaner of temporary files may do: calls that need a further connection would fail, until the next start."""
    with started("--data-dir", str(tmp_path)) as (process, address), tasks_policy(address) as run:
        run.report([1], [1])
        shutil.rmtree((tmp_path / "valkey.pid").read_text().split()[1])
        assert process.wait(SECONDS) == 1
        assert process.stderr is not None
        assert "the private Valkey lost its socket" in process.stderr.read()
    with started("--data-dir", str(tmp_path)) as (_, address), tasks_policy(address) as run:
        assert run.info().version == 1


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """A second server on a port ends with one line."""
    with started("--data-dir", str(tmp_path / "one")) as (_, address):
        finished = subprocess.run(
            [sys.executable, "-m", "bots_server", "--data-dir", str(tmp_path / "two"), "--port", address.split(":")[1]],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    assert finished.returncode == 1
    assert f"cannot listen on {address}" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_several_workers_share_a_port_and_one_is_started_again(tmp_path: Path) -> None:
    """With --processes a killed worker is replaced, calls go on, and the workers end with their parent."""
    with started("--data-dir", str(tmp_path), "--processes", "2", "--metrics-port", "0") as (process, address):
        with tasks_policy(address) as run:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            assert len(workers) == 2
            os.kill(int(workers[0]), signal.SIGKILL)
        with contextlib.suppress(grpc.RpcError), tasks_policy(address) as run:
            run.info()  # the connection may lead to the worker that was killed
        for version in range(1, 21):
            with tasks_policy(address) as run:  # over a connection of its own, to either worker
                assert run.report([version], [1]).version == version
                assert run.select(4).version == version
        end(process, signal.SIGKILL)
    wait_until_gone(tmp_path)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_health_and_reflection_answer(tmp_path: Path) -> None:
    """The standard services are there, and need no token; everything else needs it."""
    token = tmp_path / "token"
    write(token, {"s3cret": "ops admin *"})
    with started("--data-dir", str(tmp_path / "data"), "--tokens-file", str(token)) as (process, address):
        with grpc.insecure_channel(address) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            stub = TaskSelectionServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.ListDatasets(pb.ListDatasetsRequest(), timeout=10)
            assert reason_of(refused.value) == "BAD_TOKEN"
            metadata = (("authorization", "Bearer s3cret"),)
            assert not stub.ListDatasets(pb.ListDatasetsRequest(), timeout=10, metadata=metadata).datasets
        end(process)
        assert process.stderr is not None
        assert "s3cret" not in process.stderr.read()


def test_a_compressed_request_without_a_token_costs_no_memory(tmp_path: Path, redis_url: str) -> None:
    """90 MiB of zeros, sent as 90 kB, are neither inflated nor kept."""
    tokens = write(tmp_path / "tokens", {"s3cret": "ops admin *"})
    body = b"\x52" + bytes([0x80, 0x80, 0x80, 0x2D]) + bytes(90 << 20)  # field 10: 90 MiB of packed zeros
    with (
        started("--redis", redis_url, "--tokens-file", str(tokens)) as (process, address),
        grpc.insecure_channel(address) as channel,
    ):
        report: Any = channel.unary_unary("/bots.v1.TaskSelectionService/ReportOutcomes")

        def refused(request: bytes) -> None:
            with pytest.raises(grpc.RpcError):
                report(request, compression=grpc.Compression.Gzip, timeout=SECONDS)

        refused(b"\x52\x01\x00")
        before = peak_memory(process.pid)
        for _ in range(3):
            refused(body)
        assert peak_memory(process.pid) - before < 16 << 20


def peak_memory(pid: int) -> int:
    """Returns the most memory in bytes that a process had."""
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found) * 1024


def test_an_insecure_server_says_so_in_one_line(redis_url: str) -> None:
    """The log says what a server that others reach does without."""
    flags = ("--host", "0.0.0.0", "--insecure", "--redis", redis_url)
    with started(*flags) as (process, _):
        end(process)
        assert process.stderr is not None
        lines = [line for line in process.stderr if "insecure" in line]
    assert len(lines) == 1
    assert "without TLS (--tls-cert, --tls-key) and tokens (--tokens-file)" in lines[0]


@pytest.mark.parametrize(("number", "processes"), [(signal.SIGTERM, "1"), (signal.SIGHUP, "1"), (signal.SIGHUP, "2")])
def test_a_server_that_drains_ends_its_streams(tmp_path: Path, number: signal.Signals, processes: str) -> None:
    """After SIGTERM, or when its terminal is closed, a stream ends in order and the process exits with 0."""
    with started("--data-dir", str(tmp_path), "--processes", processes) as (process, address):
        with tasks_policy(address) as run:
            request = pb.WatchRunRequest(run=run.ref, interval_seconds=0.1)
            watching = run.stub.WatchRun(request, timeout=SECONDS)
            next(watching)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for pid in [process.pid, *map(int, children)] if number == signal.SIGHUP else [process.pid]:
                if b"valkey" not in Path(f"/proc/{pid}/cmdline").read_bytes():  # it has a session of its own
                    os.kill(pid, number)
            assert list(watching) == []
        assert process.wait(SECONDS) == 0


@contextlib.contextmanager
def flooding(run: Run, outcomes: int) -> Iterator[tuple[threading.Semaphore, set[tuple[object, object]]]]:
    """Yields a semaphore of the reports that were answered to 16 threads, and how their last ones failed."""
    answered, failures = threading.Semaphore(0), set[tuple[object, object]]()

    def flood() -> None:
        while True:
            try:
                run.report(range(outcomes), [1] * outcomes)
                answered.release()
            except grpc.RpcError as error:
                failures.add((error.code(), reason_of(error)))
                return

    with ThreadPoolExecutor(16) as threads:
        for _ in range(16):
            threads.submit(flood)
        yield answered, failures


def stop_seconds(process: subprocess.Popen[str]) -> float:
    """Returns the seconds from SIGTERM to the end of a process, which succeeds."""
    begin = time.monotonic()
    end(process)
    assert process.returncode == 0
    return time.monotonic() - begin


def test_a_server_whose_calls_wait_stops_in_time() -> None:
    """While Redis hangs, the calls that wait for their turn are refused, so that their callers go to another server."""
    with (
        valkey() as redis,
        started("--redis", redis.url) as (process, address),
        tasks_policy(address) as run,
    ):
        with flooding(run, 1) as (answered, failures):
            for _ in range(16):
                assert answered.acquire(timeout=SECONDS)
            redis.pause()
            try:
                assert stop_seconds(process) < GRACE_SECONDS
            finally:
                redis.resume()
        assert (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING") in failures


def test_a_server_that_is_flooded_stops_in_time(tmp_path: Path) -> None:
    """What was reported is left to other servers to fold."""
    outcomes = 100_000
    with started("--data-dir", str(tmp_path)) as (process, address), grpc.insecure_channel(address) as channel:
        stub = TaskSelectionServiceStub(channel)
        header, chunk = dataset_parts("large", outcomes)
        parts = [pb.CreateDatasetRequest(header=header), pb.CreateDatasetRequest(chunk=chunk)]
        stub.CreateDataset(iter(parts), timeout=SECONDS, wait_for_ready=True)
        request = pb.CreateRunRequest(dataset="large", name="policy")
        run = Run(stub, stub.CreateRun(request, timeout=SECONDS).run.ref)
        with flooding(run, outcomes) as (answered, failures):
            for _ in range(16):
                assert answered.acquire(timeout=SECONDS)
            assert stop_seconds(process) < GRACE_SECONDS
        # gRPC cancels a call that comes between the stop and the notice of it, before a handler has it; clients repeat.
        cut = (grpc.StatusCode.CANCELLED, None)
        assert {code for code, _ in failures - {cut}} == {grpc.StatusCode.UNAVAILABLE}
