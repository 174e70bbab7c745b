"""What is put to the test: server processes over a real Valkey in one of four forms, with proxies on every way.

jobs -> front proxy -> server process -> (store proxy ->) Valkey

single    one Valkey behind the store proxy
pair      a primary and its replica, which follows through a proxy; the store proxy is the address of the primary
sentinel  a primary and its replica, watched by three sentinels; no store proxy, redis+sentinel://
cluster   three primaries with a replica each; no store proxy, redis+cluster://
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import redis
from redis.crc import key_slot

import bots
from bots_server.process.embedded import ending_with_parent
from bots_server.store.keys import Keys
from tests.faults.model import Dataset, Entry
from tests.faults.proxy import Proxy, proxy
from tests.faults.traffic import DATASET
from tests.faults.validator import Shown
from tests.valkey import HOST, Sentinels, Valkey, cluster, default_binary, free_port, sentinels, valkey, wait_until

TESTER: dict[str, Any] = {"job": "tester", "incarnation": "first", "strict": True}
Form = Literal["single", "pair", "sentinel", "cluster"]
Durability = Literal["memory", "fsync", "replica"]
START_SECONDS = 60.0


@dataclass(frozen=True)
class Kept:
    """How much history servers keep. The validator reads the whole log; snapshots are frequent, so that servers start
    from them."""

    snapshot_events: int = 20
    events: int = 1_000_000
    stride: int = 50


@dataclass
class ServerProcess:
    """One `bots-server` of its own, behind a front proxy whose port stays when the process is started again."""

    redis_url: str
    history: Kept
    flags: Sequence[str]
    log: Path
    front: Proxy
    process: subprocess.Popen[str] | None = None
    port: int = 0

    def start(self) -> None:
        """Starts it, as often as it takes (Redis may be away), until it prints its address."""
        self.launch()
        self.wait_until_listening()

    def launch(self) -> None:
        """Starts it."""
        short = [str(self.history.snapshot_events), str(self.history.events), str(self.history.stride)]
        command = [sys.executable, "-m", "tests.faults.small_server", *short]
        command += ["--port", "0", "--redis", self.redis_url, *self.flags]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                ending_with_parent(command), stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )

    def wait_until_listening(self) -> None:
        """Returns when it has printed its address; starts it again if it has ended."""
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
            self.launch()
        self.front.upstream = self.port

    def kill(self) -> None:
        """Ends it as a crash does (SIGKILL)."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def _listens(self) -> bool:
        """Returns True when it has printed its address, False when it has ended."""
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.match(r"listening on \S+:(\d+)", line):
                self.port = int(found[1])
                return True
        self.process.communicate()
        return False


@dataclass
class Deployment:
    """Everything that may fail."""

    form: Form
    durability: Durability
    nodes: list[Valkey]  # primary first; in a cluster the primary of the dataset's slot, then its replica, the others
    servers: list[ServerProcess]
    store: Proxy | None = None  # between the servers and the primary
    replication: Proxy | None = None  # between the replica and the primary
    sentinels: Sentinels | None = None
    run: str = ""  # that the jobs work on now

    @property
    def addresses(self) -> list[str]:
        """Returns the addresses that jobs use."""
        return [f"{HOST}:{server.front.port}" for server in self.servers]

    @property
    def primary(self) -> Valkey:
        return self.nodes[0]

    def new_run(self) -> str:
        """Starts a run of the dataset, and makes it the one that the jobs work on; returns its name."""
        self.run = f"run-{time.time_ns()}"
        with bots.Client(self.addresses, timeout=20, strict=True) as client:
            client.create_run(DATASET, self.run)
        if self.replication is not None:  # at durability memory nothing waits for the replica, not even the dataset
            wait_until(lambda: in_step(self.primary, 1), "the replica has the run")
        return self.run

    @contextmanager
    def client(self, number: int, timeout: float = 5.0) -> Iterator[bots.Client]:
        """Yields a client of one server alone, by no proxy."""
        with bots.Client(f"{HOST}:{self.servers[number].port}", timeout=timeout, **TESTER) as client:
            yield client

    def fail_over(self) -> None:
        """Of a pair: the primary dies, its replica is made the primary, and the old one comes back as its replica."""
        assert self.store is not None
        assert self.replication is not None
        old, new = self.nodes
        old.kill()
        with new.client() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        self.store.upstream = new.port
        self.store.cut()
        self.replication.upstream = new.port
        self.replication.refusing = False
        old.arguments = [*without(old.arguments, "--replicaof"), "--replicaof", f"{HOST} {self.replication.port}"]
        new.arguments = without(new.arguments, "--replicaof")
        old.start()
        self.nodes.reverse()
        wait_until(lambda: in_step(new, 1), "the old primary follows", 30)

    def wait_until_serving(self, seconds: float = 45.0) -> None:
        """Returns when each server takes writes to the run, at its durability."""
        for number in range(len(self.servers)):
            with self.client(number) as client:
                run = client.run(DATASET, self.run)

                def serves(run: bots.Run = run) -> bool:
                    try:
                        # A write that is waited for as a report is, and is no event.
                        run.checkpoint(f"probe-{time.time_ns()}", ttl_seconds=1)
                    except (bots.TemporaryError, bots.NotFoundError):
                        return False  # away; or what it had just seen is lost with the primary
                    return True

                wait_until(serves, f"server {number} serves", seconds)

    def wait_until_quiet(self) -> None:
        """Returns when the version has stayed for a while: calls whose callers gave up may still be under way."""
        with self.client(0) as client:
            run = client.run(DATASET, self.run)
            seen = [run.info().version]

            def quiet() -> bool:
                time.sleep(0.05)
                seen.append(run.info().version)
                return len(seen) > 10 and len(set(seen[-10:])) == 1

            wait_until(quiet, "the version stays")

    def show(self) -> dict[str, Shown]:
        """Returns what each server shows of the run."""
        shown = {}
        for number in range(len(self.servers)):
            with self.client(number) as client:
                run = client.run(DATASET, self.run)
                alpha, beta = run.posteriors()
                log = [Entry.of(event) for event in run.events()]
                shown[f"server {number}"] = Shown(run.info().version, log, alpha, beta)
        return shown


@contextmanager
def deployed(
    form: Form,
    durability: Durability,
    dataset: Dataset,
    *,
    servers: int = 2,
    appendfsync: str = "everysec",
    history: Kept = Kept(),
    flags: Sequence[str] = ("--log-level", "warning"),
) -> Iterator[Deployment]:
    """Yields a deployment that serves the dataset's run."""
    with ExitStack() as stack:
        persistence = ["--appendonly", "yes", "--appendfsync", appendfsync, "--repl-diskless-sync-delay", "0"]
        store = replication = watched = None
        if form == "single":
            nodes = [stack.enter_context(valkey(*persistence, port=free_port(), binary=_patient_binary(stack)))]
            store = stack.enter_context(proxy(nodes[0].port))
            url = f"redis://{HOST}:{store.port}"
        elif form == "pair":
            primary = stack.enter_context(valkey(*persistence, port=free_port()))
            replication = stack.enter_context(proxy(primary.port))
            follow = ["--replicaof", f"{HOST} {replication.port}", "--repl-timeout", "2"]
            replica = stack.enter_context(valkey(*persistence, *follow, port=free_port()))
            nodes = [primary, replica]
            store = stack.enter_context(proxy(primary.port))
            url = f"redis://{HOST}:{store.port}"
            wait_until(lambda: in_step(primary, 1), "the replica follows")
        elif form == "sentinel":
            watched = stack.enter_context(sentinels(1, *persistence))
            nodes = [watched.primary, *watched.replicas]
            url = watched.url
        else:
            nodes = _owner_first(stack.enter_context(cluster(3, 1, *persistence)))
            url = "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in nodes[:3])
        directory = Path(tempfile.mkdtemp(prefix="bots-test-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        flags = ["--durability", durability, *flags]
        processes = []
        for number in range(servers):
            front = stack.enter_context(proxy(0))
            server = ServerProcess(url, history, flags, directory / f"server-{number}.log", front)
            stack.callback(_end, server)
            server.launch()
            processes.append(server)
        for server in processes:
            server.wait_until_listening()
        deployment = Deployment(form, durability, nodes, processes, store, replication, watched)
        with bots.Client(deployment.addresses, timeout=20, strict=True) as client:
            client.create_dataset(DATASET, weak=dataset.weak, strong=dataset.strong)
        deployment.new_run()
        yield deployment


def in_step(node: Valkey, replicas: int) -> bool:
    """Returns whether this many replicas have acknowledged all that a primary has now."""
    with node.client() as client:
        try:
            before = client.info("replication")
            if not client.execute_command("WAIT", replicas, 100) >= replicas:
                return False
            after = client.info("replication")
        except redis.RedisError:
            return False
    following = [one for name, one in after.items() if re.fullmatch(r"slave\d+", name)]
    return sum(bool(one["offset"] >= before["master_repl_offset"]) for one in following) >= replicas


def role(node: Valkey) -> str:
    """Returns "master", "slave", or "" if it does not answer."""
    with node.client() as client:
        try:
            return str(client.info("replication")["role"])
        except redis.RedisError:
            return ""


def without(arguments: Sequence[str], flag: str) -> list[str]:
    """Returns a command line without a flag and its value."""
    at = list(arguments).index(flag) if flag in arguments else len(arguments)
    return [*arguments[:at], *arguments[at + 2 :]]


def limit_files(node: Valkey, size: int) -> None:
    """Bounds the bytes of each file of a node (RLIM_INFINITY: no bound), as a full disk does."""
    hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (size, hard))


def copy_file(node: Valkey) -> Path:
    """Returns a copy of a node's append-only file as it is now."""
    copy = Path(tempfile.mkdtemp(dir=node.directory)) / "appendonlydir"
    shutil.copytree(node.directory / "appendonlydir", copy)
    return copy


def put_back(node: Valkey, copy: Path) -> None:
    """Kills a node and starts it again with an older file."""
    node.kill()
    shutil.rmtree(node.directory / "appendonlydir")
    copy.rename(node.directory / "appendonlydir")
    node.start()


def _patient_binary(stack: ExitStack) -> str:
    """Returns a Valkey that gets an error when a file would grow beyond the limit, and not the signal."""
    directory = Path(tempfile.mkdtemp(prefix="bots-test-"))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    wrapper = directory / "valkey"
    wrapper.write_text(f'#!/bin/sh\ntrap "" XFSZ\nexec {default_binary()} "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)


def _owner_first(nodes: Sequence[Valkey]) -> list[Valkey]:
    """Returns the nodes of a cluster, the primary of the dataset's slot and its replica first."""
    slot = key_slot(Keys().dataset(DATASET).encode())
    primaries = len(nodes) // 2
    owner = next(i for i in range(primaries) if slot < 16384 * (i + 1) // primaries)
    first = [nodes[owner], nodes[primaries + owner]]
    return [*first, *(node for node in nodes if node not in first)]


def _end(server: ServerProcess) -> None:
    if server.process is not None and server.process.poll() is None:
        server.kill()
