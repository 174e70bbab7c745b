"""How durable an acknowledged report is, and that a repeat waits for it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from bots_server.errors import NotDurable, StoreUnavailable
from bots_server.storage.v1 import storage_pb2
from bots_server.store import MEMORY, Durability, Level, RedisClient, Store, choose_durability, connect
from bots_server.store.clients import Command
from tests.store import records, scenario
from tests.valkey import Valkey, replicated, valkey, wait_until


@contextmanager
def opened(server: Valkey, durability: Durability) -> Iterator[Store]:
    store = Store(connect(server.url, timeout_seconds=10), durability=durability)
    try:
        yield store
    finally:
        store.close()


def chosen(server: Valkey, level: str) -> Durability:
    client = connect(server.url)
    try:
        return choose_durability(client, level)
    finally:
        client.close()


def needs_waitaof() -> None:
    """Skips a test on Redis before 7.2."""
    with valkey() as server, server.client() as client:
        if client.info("server")["redis_version"] < "7.2":
            pytest.skip("no WAITAOF")


def test_fsync_survives_a_crash() -> None:
    """A report that was acknowledged at `fsync` is there after a crash of Redis (guarantee 1)."""
    needs_waitaof()
    for appendfsync in ("everysec", "always"):
        with (
            valkey("--appendonly", "yes", "--appendfsync", appendfsync) as server,
            opened(server, Durability(level=Level.FSYNC, timeout_seconds=5)) as store,
        ):
            run = records.run(store)
            one = records.request_id()
            store.history.append(run, records.report(7), request_id=one, digest=b"contents")
            server.kill()
            with pytest.raises(StoreUnavailable):
                records.append(store, run)
            server.start()
            again = store.history.append(run, records.report(7), request_id=one, digest=b"contents")
            assert (again.version, again.repeated) == (1, True)
            assert [event.event.report.tasks[0] for event in store.history.events(run, 0, 9).events] == [7]


def test_a_slow_disk_is_not_durable() -> None:
    """A report that is not on the disk in time is NotDurable, though stored; its repeat waits for the disk."""
    needs_waitaof()
    with valkey("--appendonly", "yes", "--appendfsync", "no") as server:  # so that Redis counts no write as synced
        with opened(server, MEMORY) as store:
            run = records.run(store)
        one = records.request_id()
        with opened(server, Durability(level=Level.FSYNC, timeout_seconds=0.01)) as store:
            for _ in range(2):
                with pytest.raises(NotDurable, match=r"not on disk within 0\.01 s"):
                    store.history.append(run, records.report(), request_id=one, digest=b"contents")
        with server.client() as admin:
            admin.config_set("appendfsync", "everysec")
        with opened(server, Durability(level=Level.FSYNC, timeout_seconds=5)) as store:
            again = store.history.append(run, records.report(), request_id=one, digest=b"contents")
            assert (again.version, again.repeated, store.history.sync(run, 0, b"").version) == (1, True, 1)


def test_a_report_waits_for_the_replicas() -> None:
    """At `replica` a report is acknowledged when the configured number of replicas have it; a repeat waits again."""
    with replicated(2) as (primary, (first, second)):
        with opened(primary, Durability(level=Level.REPLICA, replicas=2, timeout_seconds=0.2)) as store:
            scenario.everything(store)
            run = records.run(store)
            one = records.request_id()
            second.pause()
            for _ in range(2):
                with pytest.raises(NotDurable, match="on 1 of 2 replicas"):
                    store.history.append(run, records.report(), request_id=one, digest=b"contents")
            with pytest.raises(NotDurable):
                store.history.repeated(run, one, b"contents")
            with pytest.raises(NotDurable):
                store.runs.create(run)
            second.resume()
            wait_until(lambda: _repeats(store, run, one), "the second replica goes on")
            assert store.history.sync(run, 0, b"").version == 1
        with first.client() as replica:
            assert replica.hget(f"bots:{{guru-math}}:{run.dataset_uid}:run:{run.uid}", "version") == b"1"


class Moving:
    """A client whose first call reaches one primary, and whose later calls reach the next one."""

    def __init__(self, first: RedisClient, then: RedisClient) -> None:
        self._clients = [first, then]

    def ask(self, key: str, *commands: Command) -> list[Any]:
        client = self._clients.pop(0) if len(self._clients) > 1 else self._clients[0]
        return client.ask(key, *commands)


def test_a_repeat_that_meets_another_primary_is_not_acknowledged_by_the_first() -> None:
    """A primary that is replaced knows a report that the next one lacks; the repeat is then stored on the next one."""
    with replicated(1) as (old, _), replicated(1) as (new, _):
        one, replica = records.request_id(), Durability(level=Level.REPLICA, timeout_seconds=5)
        with opened(old, MEMORY) as first, opened(new, MEMORY) as then:
            run = records.run(first)
            before, after = records.redis_of(first), records.redis_of(then)
            for key in before.scan_iter():
                after.restore(key, 0, before.dump(key))
            first.history.append(run, records.report(), request_id=one, digest=b"contents")
            store = Store(cast("RedisClient", Moving(first.client, then.client)), durability=replica)
            answer = store.history.append(run, records.report(), request_id=one, digest=b"contents")
            assert (answer.version, answer.repeated) == (1, False)
            assert then.history.sync(run, 0, b"").version == 1


def _repeats(store: Store, run: storage_pb2.RunRecord, request_id: str) -> bool:
    try:
        answer = store.history.append(run, records.report(), request_id=request_id, digest=b"contents")
    except NotDurable:
        return False
    return (answer.version, answer.repeated) == (1, True)


def test_forgotten_scripts_are_sent_again() -> None:
    """A Redis that has forgotten the scripts gets them again, at every durability."""
    with valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        for durability in (MEMORY, chosen(server, "fsync")):
            with opened(server, durability) as store:
                run = records.run(store, name=durability.level.value)
                for version in (1, 2):
                    records.redis_of(store).script_flush()
                    assert records.append(store, run).version == version
                    records.redis_of(store).script_flush()
                    assert store.history.sync(run, 0, b"").version == version


def test_an_upload_that_is_not_durable_in_time_stays() -> None:
    """A dataset whose commit is answered NotDurable is there, and its repeat finds it."""
    with (
        replicated(1) as (primary, (replica,)),
        opened(primary, Durability(level=Level.REPLICA, timeout_seconds=0.05)) as store,
    ):
        replica.pause()
        with pytest.raises(NotDurable):
            records.dataset(store)
        replica.resume()
        assert [list(store.datasets.columns(record)) for record in store.datasets.list()] == [
            [records.columns(0), records.columns(1)]
        ]


def test_auto_durability_costs_no_extra_wait() -> None:
    """`auto` is fsync if Redis writes before it answers; a level that this Redis cannot give is refused."""
    needs_waitaof()
    with valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        assert chosen(server, "auto") == Durability(level=Level.FSYNC)
        assert chosen(server, "memory") == MEMORY
        assert chosen(server, "replica").level is Level.REPLICA
    with valkey("--appendonly", "yes") as server:
        assert chosen(server, "auto") == MEMORY
        assert chosen(server, "fsync") == Durability(level=Level.FSYNC)
    with valkey("--appendfsync", "always") as server:
        assert chosen(server, "auto") == MEMORY
        with pytest.raises(ValueError, match="no append-only file"):
            chosen(server, "fsync")
    with valkey("--appendonly", "yes", "--rename-command", "WAITAOF", "") as server:
        with pytest.raises(ValueError, match=r"before 7\.2 needs appendfsync always"):
            chosen(server, "fsync")
        with server.client() as client:
            client.config_set("appendfsync", "always")
        assert chosen(server, "fsync") == Durability(level=Level.FSYNC, waitaof=False)
