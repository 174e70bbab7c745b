"""Redis away, hanging, full or read-only: the errors of the store, and that it recovers."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bots_server.errors import StoreFull, StoreUnavailable
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Part, Store, check_redis, connect
from tests.faults.proxy import proxy
from tests.store import records
from tests.valkey import HOST, Valkey, free_port, valkey, wait_until


@pytest.fixture
def own() -> Iterator[Valkey]:
    """A Valkey that may be hurt."""
    with valkey("--appendonly", "yes", port=free_port()) as server:
        yield server


@pytest.fixture
def hurt(own: Valkey) -> Iterator[Store]:
    store = Store(connect(own.url, timeout_seconds=1))
    yield store
    store.close()


def test_calls_fail_at_once_while_redis_is_away(own: Valkey, hurt: Store) -> None:
    """While Redis is away every call fails at once; when it is back, calls succeed with the data that it had."""
    run = records.run(hurt)
    records.append(hurt, run)
    own.stop()
    for call in (
        lambda: records.append(hurt, run),
        lambda: hurt.history.sync(run, 0, b""),
        lambda: hurt.datasets.list(),
        lambda: hurt.leases.release(run, "one"),
        hurt.ping,
    ):
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            call()
        assert time.monotonic() - start < 1
    own.start()
    assert records.append(hurt, run).version == 2


def test_a_hanging_redis_is_unavailable_after_the_timeout(own: Valkey, hurt: Store) -> None:
    """A Redis that hangs is unavailable after the timeout; an event that was sent repeatedly is applied once."""
    run = records.run(hurt)
    assert records.append(hurt, run).version == 1
    one = records.request_id()
    own.pause()
    start = time.monotonic()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            hurt.history.append(run, records.report(), request_id=one, digest=b"contents")
    assert 2 <= time.monotonic() - start < 4
    own.resume()
    wait_until(lambda: hurt.history.sync(run, 0, b"").version == 2, "Redis applies the event")
    answer = hurt.history.append(run, records.report(), request_id=one, digest=b"contents")
    assert (answer.version, answer.repeated) == (2, True)


def test_retries_and_commands_are_observed(own: Valkey) -> None:
    """`on_retry` is called when a broken connection is made again, and `observe` after each command."""
    retries: list[None] = []
    observed: list[tuple[str, bool]] = []
    store = Store(
        connect(own.url, on_retry=lambda: retries.append(None)),
        observe=lambda name, seconds, failed: observed.append((name, failed)),
    )
    run = records.run(store)
    assert records.append(store, run).version == 1
    assert retries == []
    own.stop()
    with pytest.raises(StoreUnavailable):
        store.history.sync(run, 0, b"")
    assert retries != []
    assert observed[-2:] == [("append", False), ("sync", True)]
    store.close()


def test_a_full_memory_refuses_writes_whole(own: Valkey, hurt: Store) -> None:
    """A Redis at maxmemory refuses to grow, and stores nothing of a refused call; reading and releasing go on."""
    run = records.run(hurt)
    records.append(hurt, run)
    offer = storage_pb2.Offer(selection_id="one", tasks=[1, 3])
    hurt.leases.claim(run, [Part(2, [1, 3])], offer, lease_seconds=60)
    with own.client() as admin:
        admin.config_set("maxmemory", "1")
        before = admin.dbsize()
        with pytest.raises(StoreFull, match="maxmemory"):
            records.append(hurt, run)
        with pytest.raises(StoreFull):
            hurt.history.put_snapshot(run, records.snapshot(hurt, run, 1))
        with pytest.raises(StoreFull):
            hurt.leases.claim(run, [Part(1, [2])], offer, lease_seconds=60, request_id="r")
        with pytest.raises(StoreFull):
            hurt.runs.create(records.run_record(hurt.datasets.get("guru-math"), "other"))
        with pytest.raises(StoreFull):
            records.dataset(hurt, "other")
        assert admin.dbsize() == before
        assert hurt.history.sync(run, 0, b"").version == 1
        assert hurt.leases.release(run, "one", [3]) == 1
        assert hurt.leases.release(run, "one") == 1
        admin.config_set("maxmemory", "0")
    assert records.append(hurt, run).version == 2
    hurt.datasets.delete("guru-math", delete_runs=True)


def test_a_full_disk_refuses_writes(own: Valkey, hurt: Store) -> None:
    """A Redis that cannot write to its disk refuses writes with this reason; reading goes on."""
    run = records.run(hurt)
    with own.client() as admin:
        (own.directory / "dump.rdb").mkdir()  # in the way of the file
        admin.config_set("save", "3600 1")
        admin.bgsave()
        wait_until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err", "the dump fails")
        with pytest.raises(StoreFull, match="cannot write to its disk"):
            records.append(hurt, run)
        assert any("last write to disk failed" in risk for risk in check_redis(hurt.client))
        assert hurt.history.sync(run, 0, b"").version == 0
        hurt.ping()


def test_a_replica_is_neither_written_nor_read(own: Valkey, hurt: Store) -> None:
    """A replica is unavailable for writes and for syncs, because it may not have every report."""
    run = records.run(hurt)
    with own.client() as admin:
        admin.replicaof(HOST, free_port())
        for call in (lambda: records.append(hurt, run), lambda: hurt.history.sync(run, 0, b""), hurt.ping):
            with pytest.raises(StoreUnavailable, match="is a replica"):
                call()
        assert any("is a replica" in risk for risk in check_redis(hurt.client))
        admin.replicaof("NO", "ONE")
    assert records.append(hurt, run).version == 1


def test_errors_are_told_by_their_cause(own: Valkey, hurt: Store) -> None:
    """A script of another client, the limit of clients, and a password that was set are told as such."""
    with own.client() as admin:
        blocked = threading.Thread(target=lambda: suppressed(admin, "EVAL", "while true do end", 0))
        admin.config_set("busy-reply-threshold", 1)
        blocked.start()
        wait_until(lambda: "is busy with a script" in told(hurt), "the script is told")
        with own.client() as other:
            other.script_kill()
        blocked.join()
        admin.config_set("maxclients", 1)
        hurt.client.disconnect()
        assert told(hurt) == "Redis has as many clients as it accepts (maxclients)"
        admin.config_set("maxclients", 1000)
        admin.config_set("requirepass", "s3cret")
        hurt.client.disconnect()
        assert told(hurt).startswith("Redis refuses the login of the URL: ")
        admin.config_set("requirepass", "")
    hurt.ping()


def told(store: Store) -> str:
    """Returns the error that a call raises; empty: it raises none."""
    try:
        store.ping()
    except StoreUnavailable as failure:
        return str(failure)
    return ""


def suppressed(admin: redis.Redis, *command: object) -> None:
    """Sends a command that is ended."""
    with contextlib.suppress(redis.RedisError):
        admin.execute_command(*command)  # type: ignore[no-untyped-call]


def test_connections_to_a_demoted_primary_are_given_up(own: Valkey) -> None:
    """If a balancer leads to another primary, connections to the demoted one end at its first refusal."""
    with valkey(port=free_port()) as other, proxy(own.port) as balancer:
        store = Store(connect(f"redis://{HOST}:{balancer.port}", timeout_seconds=1))
        run = records.run(store)
        records.append(store, run)
        with own.client() as old, other.client() as new:
            new.replicaof(HOST, own.port)
            wait_until(lambda: new.info("replication").get("master_link_status") == "up", "the other follows")
            wait_until(lambda: new.hget(records.KEYS.of_run(run).run, "version") == b"1", "and has all")
            new.replicaof("NO", "ONE")
            balancer.upstream = other.port
            old.replicaof(HOST, other.port)
        with pytest.raises(StoreUnavailable, match="is a replica"):
            store.ping()
        store.ping()
        assert store.history.sync(run, 0, b"").version == 1
        assert records.append(store, run).version == 2
        store.close()


def test_writes_are_unavailable_without_the_replicas_that_redis_wants(own: Valkey, hurt: Store) -> None:
    """If Redis requires replicas that it does not have, writes are unavailable; reading goes on."""
    run = records.run(hurt)
    with own.client() as admin:
        admin.config_set("min-replicas-to-write", 1)
        with pytest.raises(StoreUnavailable, match="NOREPLICAS"):
            records.append(hurt, run)
        assert hurt.history.sync(run, 0, b"").version == 0
        hurt.ping()
        admin.config_set("min-replicas-to-write", 0)
    assert records.append(hurt, run).version == 1


def test_each_risky_setting_is_named() -> None:
    """A Redis with the settings of deploy/redis/redis.conf has no risk; each missing setting is named."""
    configuration = Path(__file__).parent.parent.parent / "deploy" / "redis" / "redis.conf"
    ours = ("--port", "0", "--bind", HOST)  # in place of the file's
    with valkey("--include", str(configuration), *ours) as server, server.client() as client:
        assert check_redis(connect(server.url)) == []
        assert client.config_get("maxmemory")["maxmemory"] == str(1 << 30)
    with valkey("--appendonly", "yes") as server, server.client() as client:
        assert check_redis(connect(server.url)) == []
        client.config_set("appendfsync", "no")
        client.config_set("maxmemory-policy", "allkeys-lru")
        risks = check_redis(connect(server.url))
        assert len(risks) == 2
        assert "maxmemory-policy is allkeys-lru" in risks[0]
        assert "appendfsync is no" in risks[1]
    with valkey() as server, server.client() as client:
        (risk,) = check_redis(connect(server.url))
        assert "no append-only file" in risk
        client.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-@scripting"])
        risks = check_redis(connect(f"unix://reader:x@{server.socket}"))
        assert "scripts are not allowed" in risks[0]
