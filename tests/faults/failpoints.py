"""The failpoints: each strikes a deployment under traffic, mends it, and returns when the service serves again.

What survives is said by durability: the faults that a durability covers take back no acknowledged report.

 * `memory` survives whatever leaves Redis alone.
 * `fsync` also a Redis that dies and comes back with its append-only file.
 * `replica` also a primary that is lost while its replica takes over.

None survives an append-only file that is put back from an older copy. SIGKILL of Redis is not a power cut: what it has
handed to the kernel survives, so `memory` rarely loses anything here; the operations page says what a power cut takes.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import redis

from tests.faults.deployment import (
    Deployment,
    Durability,
    Form,
    copy_file,
    in_step,
    limit_files,
    put_back,
    role,
    without,
)
from tests.faults.model import Fault, History
from tests.faults.traffic import jobs
from tests.valkey import HOST, Valkey, wait_until

EVERY: frozenset[Durability] = frozenset({"memory", "fsync", "replica"})
NOT_MEMORY: frozenset[Durability] = frozenset({"fsync", "replica"})
REPLICA: frozenset[Durability] = frozenset({"replica"})
NONE: frozenset[Durability] = frozenset()

_ANY: frozenset[Form] = frozenset({"single", "pair", "sentinel", "cluster"})
_PROXIED: frozenset[Form] = frozenset({"single", "pair"})
_SINGLE: frozenset[Form] = frozenset({"single"})
_PAIR: frozenset[Form] = frozenset({"pair"})
_WATCHED: frozenset[Form] = frozenset({"sentinel", "cluster"})

CALM_SECONDS = 0.25  # of traffic between two faults
SOCKET_SECONDS = 2.0  # the server's --redis-timeout-seconds


@dataclass(frozen=True)
class Failpoint:
    """A way to fail."""

    strike: Callable[[Deployment, random.Random], None]
    forms: frozenset[Form]  # that it can strike
    covered_by: frozenset[Durability]  # durabilities at which it takes back nothing acknowledged
    moves_primary: bool = False

    @property
    def name(self) -> str:
        return self.strike.__name__

    def __call__(self, deployment: Deployment, rng: random.Random) -> Fault:
        """Strikes and mends; returns what was done."""
        began = time.time()
        self.strike(deployment, rng)
        deployment.wait_until_serving()
        takes_back = deployment.durability not in self.covered_by
        return Fault(self.name, began, time.time(), takes_back, self.moves_primary)


# ------------------------------------------------------------------------------------------------ servers


def server_killed(deployment: Deployment, rng: random.Random) -> None:
    """A server dies at work; another one is started in its place a little later."""
    server = rng.choice(deployment.servers)
    server.kill()
    time.sleep(rng.uniform(0, 0.3))
    server.start()


def server_answers_lost(deployment: Deployment, rng: random.Random) -> None:
    """Calls are done, and the connection drops before the answer."""
    rng.choice(deployment.servers).front.lose_answers(rng.uniform(0.05, 0.5))


def server_cut(deployment: Deployment, rng: random.Random) -> None:
    """Connections to a server break, some times in a row."""
    front = rng.choice(deployment.servers).front
    for _ in range(rng.randrange(1, 6)):
        front.cut()
        time.sleep(0.05)


def server_delayed(deployment: Deployment, rng: random.Random) -> None:
    """A server's answers come late."""
    front = rng.choice(deployment.servers).front
    front.delay_seconds = rng.uniform(0.05, 0.5)
    time.sleep(0.7)
    front.delay_seconds = 0.0


# ------------------------------------------------------------------------------------------------ the way to Redis


def store_answers_lost(deployment: Deployment, rng: random.Random) -> None:
    """Scripts are run, and the connection drops before their answer: the client of Redis and the job repeat them."""
    assert deployment.store is not None
    for _ in range(rng.randrange(1, 4)):
        deployment.store.lose_answers(rng.uniform(0.02, 0.2))
        time.sleep(0.1)


def store_cut(deployment: Deployment, rng: random.Random) -> None:
    """Connections to Redis break, and none is to be had for a while."""
    assert deployment.store is not None
    deployment.store.refusing = True
    deployment.store.cut()
    time.sleep(rng.uniform(0.1, 1.0))
    deployment.store.refusing = False


def store_delayed(deployment: Deployment, rng: random.Random) -> None:
    """Redis' answers come late, some of them after the server has given up."""
    assert deployment.store is not None
    delay = deployment.store.delay_seconds = rng.choice((0.05, 0.3, SOCKET_SECONDS + 0.2))
    time.sleep(delay + 0.3)
    deployment.store.delay_seconds = 0.0


def store_held(deployment: Deployment, rng: random.Random) -> None:
    """Nothing passes between servers and Redis, and no connection breaks."""
    assert deployment.store is not None
    deployment.store.holding = True
    time.sleep(rng.uniform(0.5, SOCKET_SECONDS + 0.5))
    deployment.store.holding = False


# ------------------------------------------------------------------------------------------------ Redis itself


def redis_killed(deployment: Deployment, rng: random.Random) -> None:
    """Redis dies and is started again with its append-only file."""
    deployment.primary.kill()
    time.sleep(rng.uniform(0, 0.5))
    deployment.primary.start()


def redis_paused(deployment: Deployment, rng: random.Random) -> None:
    """Redis hangs, for a little or for longer than a server waits."""
    deployment.primary.pause()
    try:
        time.sleep(rng.choice((0.3, SOCKET_SECONDS + 0.5)))
    finally:
        deployment.primary.resume()


def redis_read_only(deployment: Deployment, rng: random.Random) -> None:
    """Redis is made a replica of nobody, and refuses every write."""
    with deployment.primary.client() as client:
        client.execute_command("REPLICAOF", HOST, 1)
        time.sleep(rng.uniform(0.3, 1.0))
        client.execute_command("REPLICAOF", "NO", "ONE")


def redis_out_of_memory(deployment: Deployment, rng: random.Random) -> None:
    """Redis is at its maxmemory, with noeviction."""
    with deployment.primary.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1 << 20)
        time.sleep(rng.uniform(0.3, 1.0))
        client.config_set("maxmemory", 0)


def redis_disk_full(deployment: Deployment, rng: random.Random) -> None:
    """The append-only file cannot grow. With appendfsync always Redis ends by itself then, and is started again."""
    files = (deployment.primary.directory / "appendonlydir").glob("*.aof")
    limit_files(deployment.primary, max(file.stat().st_size for file in files) + rng.randrange(2000))
    time.sleep(rng.uniform(0.4, 1.0))
    process = deployment.primary.process
    assert process is not None
    if process.poll() is None:
        # It may still end by itself between the two: then there is nothing to lift.
        with suppress(ProcessLookupError):
            limit_files(deployment.primary, resource.RLIM_INFINITY)
        with deployment.primary.client() as client, suppress(redis.ConnectionError):
            wait_until(lambda: client.info("persistence")["aof_last_write_status"] == "ok", "Redis writes again")
    if process.poll() is not None:
        deployment.primary.start()


def older_file(deployment: Deployment, rng: random.Random) -> None:
    """Redis dies, and its append-only file is put back from a copy that is some time old."""
    copy = copy_file(deployment.primary)
    time.sleep(rng.uniform(0.5, 1.5))
    put_back(deployment.primary, copy)


# ------------------------------------------------------------------------------------------------ failover


def primary_killed(deployment: Deployment, rng: random.Random) -> None:
    """The primary dies for good, its replica takes over by itself; later it comes back as a replica."""
    _fail_over(deployment, Valkey.kill)


def primary_paused(deployment: Deployment, rng: random.Random) -> None:
    """The primary hangs until its replica has taken over, then wakes up and holds itself for the primary."""
    _fail_over(deployment, Valkey.pause)


def replica_lags_and_takes_over(deployment: Deployment, rng: random.Random) -> None:
    """The replica is cut off, the primary goes on for a while and dies, and the replica is made the primary."""
    assert deployment.replication is not None
    deployment.replication.refusing = True
    deployment.replication.cut()
    time.sleep(rng.uniform(0.3, 1.5))
    deployment.fail_over()


def _fail_over(deployment: Deployment, end: Callable[[Valkey], None]) -> None:
    old, new = deployment.nodes[:2]
    end(old)
    try:
        wait_until(lambda: role(new) == "master", "the replica takes over", 30)
    finally:
        if end is Valkey.pause:
            old.resume()
    if deployment.form == "sentinel":
        new.arguments = without(new.arguments, "--replicaof")
        old.arguments = [*without(old.arguments, "--replicaof"), "--replicaof", f"{HOST} {new.port}"]
    if end is Valkey.kill:
        old.start()  # in a cluster it finds its place by itself

    def settled() -> bool:
        """Returns whether one follows the other. Sentinel may make the old one, which is back, the primary again."""
        deployment.nodes[:2] = sorted((new, old), key=role)
        primary, replica = deployment.nodes[:2]
        return (role(primary), role(replica)) == ("master", "slave") and in_step(primary, 1)

    wait_until(settled, "one follows the other", 90)
    if deployment.sentinels is not None:
        watched = deployment.sentinels
        wait_until(lambda: watched.primary_port() == deployment.nodes[0].port, "the sentinels agree", 30)


FAILPOINTS = (
    Failpoint(server_killed, _ANY, EVERY),
    Failpoint(server_answers_lost, _ANY, EVERY),
    Failpoint(server_cut, _ANY, EVERY),
    Failpoint(server_delayed, _ANY, EVERY),
    Failpoint(store_answers_lost, _PROXIED, EVERY),
    Failpoint(store_cut, _PROXIED, EVERY),
    Failpoint(store_delayed, _PROXIED, EVERY),
    Failpoint(store_held, _PROXIED, EVERY),
    Failpoint(redis_killed, _SINGLE, NOT_MEMORY),
    Failpoint(redis_paused, _PROXIED, EVERY),
    Failpoint(redis_read_only, _SINGLE, EVERY),
    Failpoint(redis_out_of_memory, _PROXIED, EVERY),
    Failpoint(redis_disk_full, _SINGLE, EVERY),
    Failpoint(older_file, _SINGLE, NONE),
    Failpoint(replica_lags_and_takes_over, _PAIR, REPLICA, moves_primary=True),
    Failpoint(primary_killed, _WATCHED, REPLICA, moves_primary=True),
    Failpoint(primary_paused, _WATCHED, REPLICA, moves_primary=True),
)


def struck(deployment: Deployment, failpoints: Sequence[Failpoint], seed: int, *, count: int = 4) -> History:
    """Returns what `count` jobs met on a new run while the failpoints struck, one after the other."""
    deployment.new_run()
    history, rng = History(), random.Random(seed)
    covered = all(deployment.durability in failpoint.covered_by for failpoint in failpoints)
    with jobs(deployment.addresses, deployment.run, history, count=count, seed=seed, restores=covered):
        for failpoint in failpoints:
            time.sleep(CALM_SECONDS)
            history.faults.append(failpoint(deployment, rng))
        time.sleep(CALM_SECONDS)
    deployment.wait_until_quiet()
    return history
