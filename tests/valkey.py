"""Real Valkeys for tests: one, with replicas, with sentinels, as a cluster. Each ends by its pid, whatever happens.

    with valkey() as server:
        store = Store(connect(server.url))
        server.kill()                     # SIGKILL, the data stays
        server.start()

All listen on the loopback only, and end with the tests even if these are killed. With TEST_REDIS set to the
path of another redis-server or valkey-server the tests run on that one.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bots_server.process.embedded import ending_with_parent, find_binary

HOST = "127.0.0.1"

# No dumps; and a replica does not wait five seconds for others that may want the same dump.
_QUICK = ("--save", "", "--repl-diskless-sync-delay", "0")


def default_binary() -> str:
    """Returns the path of the server that the tests run on."""
    return os.environ.get("TEST_REDIS") or find_binary()


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Returns when the condition holds. Fails if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.01)


def free_port() -> int:
    """Returns a port that is free now, as is the port of the cluster's bus 10,000 above it.

    Each process of pytest-xdist draws from numbers of its own. All are below those that the kernel gives to outgoing
    connections.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.SystemRandom().randrange(12_000 + worker, 22_000, workers)
        with socket.socket() as probe, socket.socket() as bus, suppress(OSError):
            probe.bind((HOST, port))
            bus.bind((HOST, port + 10_000))
            return port


@dataclass
class Valkey:
    """One server process in a directory of its own."""

    directory: Path
    arguments: Sequence[str] = ()  # of the command line, after our own
    port: int = 0  # 0: on its Unix socket alone
    binary: str = field(default_factory=default_binary)
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        """For `connect`: TCP if it has a port."""
        return f"redis://{HOST}:{self.port}" if self.port else f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def client(self) -> redis.Redis:
        """Returns a client of this one process, whatever its role; close it."""
        return redis.Redis(
            unix_socket_path=str(self.socket), protocol=2, socket_timeout=10, retry=Retry(NoBackoff(), 0)
        )

    def start(self, *, wait: bool = True) -> None:
        """Starts it, with the data that its directory has; `wait`: until it answers."""
        assert self.process is None or self.process.poll() is not None
        common = [
            "--port",
            str(self.port),
            "--bind",
            HOST,
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(self.directory),
        ]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ending_with_parent([self.binary, *common, *_QUICK, *self.arguments]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if wait:
            wait_until(self.answers, f"Valkey in {self.directory} answers")

    def answers(self) -> bool:
        """Returns whether it has loaded its data and answers."""
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:  # it answers, if not us
                return True
            except redis.ConnectionError:
                return False

    def kill(self) -> None:
        """Ends it as a crash does (SIGKILL); returns when it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it as an operator does (SIGTERM): it writes what it has."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """It hangs (SIGSTOP): connections stay, answers do not come."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on after `pause`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, by: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(by)
        if by is signal.SIGTERM:
            self.process.send_signal(signal.SIGCONT)  # a paused one would not hear
        self.process.wait(30)


@contextmanager
def valkey(*arguments: str, port: int = 0, binary: str | None = None) -> Iterator[Valkey]:
    """Yields a running server, with `arguments` added to its command line (`"--appendonly", "yes"`)."""
    directory = Path(tempfile.mkdtemp(prefix="bots-test-"))
    server = Valkey(directory, arguments, port, binary or default_binary())
    try:
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def replicated(replicas: int, *arguments: str) -> Iterator[tuple[Valkey, list[Valkey]]]:
    """Yields a primary, with TCP ports, and its replicas, in step with it."""
    with ExitStack() as stack:
        primary = stack.enter_context(valkey(*arguments, port=free_port()))
        following = [
            stack.enter_context(valkey(*arguments, "--replicaof", f"{HOST} {primary.port}", port=free_port()))
            for _ in range(replicas)
        ]
        with primary.client() as client:
            client.set("in-step", "")  # WAIT waits for what its own connection has written
            wait_until(lambda: client.execute_command("WAIT", replicas, 100) == replicas, "replicas in step")
            client.delete("in-step")
        yield primary, following


@dataclass
class Sentinels:
    """Three sentinels over one primary and its replicas."""

    primary: Valkey  # at the start
    replicas: list[Valkey]
    sentinels: list[Valkey]
    service: str = "bots"

    @property
    def url(self) -> str:
        """For `connect`."""
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}/0"

    def primary_port(self) -> int:
        """Returns the port of what the first sentinel holds for the primary now."""
        with redis.Redis(host=HOST, port=self.sentinels[0].port, protocol=2) as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)[1])


@contextmanager
def sentinels(replicas: int = 1, *arguments: str, down_after_ms: int = 500) -> Iterator[Sentinels]:
    """Yields sentinels that agree on the primary and know its replicas."""
    with ExitStack() as stack:
        primary, following = stack.enter_context(replicated(replicas, *arguments))
        watching = []
        for _ in range(3):
            directory = Path(tempfile.mkdtemp(prefix="bots-test-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            configuration = directory / "sentinel.conf"
            configuration.write_text(
                f"sentinel monitor bots {HOST} {primary.port} 2\n"
                f"sentinel down-after-milliseconds bots {down_after_ms}\n"
                "sentinel failover-timeout bots 3000\n"
            )
            watching.append(_sentinel(stack, directory, configuration))
        group = Sentinels(primary, following, watching)
        for sentinel in watching:
            wait_until(lambda s=sentinel: _knows_all(s, replicas), "sentinels know each other")  # type: ignore[misc]
        yield group


def _sentinel(stack: ExitStack, directory: Path, configuration: Path) -> Valkey:
    """Returns a running sentinel: a Valkey whose configuration file comes first on the command line."""
    sentinel = Valkey(directory, ["--sentinel"], free_port())
    command = [str(configuration), "--port", str(sentinel.port), "--bind", HOST, "--dir", str(directory), "--sentinel"]
    with (directory / "log").open("ab") as log:
        sentinel.process = subprocess.Popen(
            ending_with_parent([sentinel.binary, *command]), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    stack.callback(sentinel.kill)
    return sentinel


def _knows_all(sentinel: Valkey, replicas: int) -> bool:
    try:
        with redis.Redis(host=HOST, port=sentinel.port, protocol=2, retry=Retry(NoBackoff(), 0)) as client:
            master = client.execute_command("SENTINEL", "MASTER", "bots")
    except redis.ConnectionError:
        return False
    known = dict(zip(master[::2], master[1::2], strict=True)) if isinstance(master, list) else master
    text = {_text(key): _text(value) for key, value in known.items()}
    return int(text["num-other-sentinels"]) == 2 and int(text["num-slaves"]) == replicas


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def cluster(primaries: int = 3, replicas: int = 0, *arguments: str) -> Iterator[list[Valkey]]:
    """Yields the nodes of a cluster that serves all slots: the primaries, then `replicas` for each of them."""
    with ExitStack() as stack:
        flags = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"]
        nodes = [
            stack.enter_context(valkey(*flags, *arguments, port=free_port())) for _ in range(primaries * (1 + replicas))
        ]
        clients = [stack.enter_context(node.client()) for node in nodes]
        bounds = [16384 * i // primaries for i in range(primaries + 1)]
        for client, low, high in zip(clients, bounds, bounds[1:], strict=False):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
        for node in nodes[1:]:
            clients[0].execute_command("CLUSTER", "MEET", HOST, node.port)
        ids = [_text(client.execute_command("CLUSTER", "MYID")) for client in clients]

        def formed() -> bool:
            states = [client.cluster("INFO")["cluster_state"] for client in clients]
            return states == ["ok"] * len(nodes)

        wait_until(formed, "cluster serves")
        for i, client in enumerate(clients[primaries:]):
            wait_until(lambda c=client, of=ids[i % primaries]: _follow(c, of), "replica follows")  # type: ignore[misc]
            wait_until(lambda c=client: c.info("replication").get("master_link_status") == "up", "replica in step")  # type: ignore[misc]
        yield nodes


def _follow(client: redis.Redis, primary_id: str) -> bool:
    """Makes a node a replica; returns False while it has not heard of the primary."""
    try:
        client.execute_command("CLUSTER", "REPLICATE", primary_id)  # type: ignore[no-untyped-call]
    except redis.ResponseError:
        return False
    return True
