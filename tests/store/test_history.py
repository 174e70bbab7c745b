"""The stream of events: what is appended, what a sync says, who is refused."""

from __future__ import annotations

import threading
import time
import uuid

import pytest

from bots_server.errors import InvalidField, RequestIdReused, RequestTooOld, RunReplaced, VersionMismatch
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Store, StoredEvent, keys
from tests.store import records


def test_versions_have_no_gaps(store: Store) -> None:
    """Each event makes the next version, and is read back as it was appended."""
    run = records.run(store)
    assert [records.append(store, run, records.report(task)).version for task in range(5)] == [1, 2, 3, 4, 5]
    seen = store.history.sync(run, 0, b"")
    assert (seen.exists, seen.diverged, seen.version, seen.snapshot_version, seen.leases) == (True, False, 5, 0, 0)
    assert [event.version for event in seen.events] == [1, 2, 3, 4, 5]
    assert [event.event for event in seen.events] == [records.report(task) for task in range(5)]
    assert len({event.nonce for event in seen.events}) == 5


def test_sync_tells_what_is_new(store: Store) -> None:
    """A selection sees every report acknowledged before it was asked (on the same Redis primary)."""
    run = records.run(store)
    version, nonce = 0, b""
    for task in range(3):
        records.append(store, run, records.report(task))
        seen = store.history.sync(run, version, nonce)
        assert [event.event.report.tasks[0] for event in seen.events] == [task]
        version, nonce = seen.events[-1].version, seen.events[-1].nonce
    seen = store.history.sync(run, version, nonce)
    assert (seen.diverged, seen.version, seen.events) == (False, 3, [])


def test_repeat_changes_nothing(store: Store) -> None:
    """An acknowledged report is stored at the configured durability and applied exactly once, in an order all servers
    agree on; a repeat of its request_id changes nothing and returns the first answer, or is refused when too old to
    know.
    """
    run = records.run(store, request_memory=3)
    ids = [records.request_id(at) for at in (10, 20, 30, 40, 50)]
    for version, one in enumerate(ids[:3], start=1):
        first = store.history.append(run, records.report(), request_id=one, digest=b"contents")
        again = store.history.append(run, records.report(), request_id=one, digest=b"contents")
        assert (first.version, first.repeated, again.version, again.repeated) == (version, False, version, True)
    for version, one in enumerate(ids[3:], start=4):
        assert store.history.append(run, records.report(), request_id=one, digest=b"contents").version == version
    assert store.history.append(run, records.report(), request_id=ids[2], digest=b"contents").version == 3
    with pytest.raises(RequestTooOld, match=ids[1]):
        store.history.append(run, records.report(), request_id=ids[1], digest=b"contents")
    assert store.history.sync(run, 0, b"").version == 5
    assert store._database.client.zcard(keys.of_run(run).requests) == 3


def test_other_content_is_refused(store: Store) -> None:
    """A request id that was used for other content is refused, and nothing of it is stored."""
    run = records.run(store)
    one = records.request_id()
    store.history.append(run, records.report(1), request_id=one, digest=b"one-----")
    with pytest.raises(RequestIdReused, match=one):
        store.history.append(run, records.report(2), request_id=one, digest=b"another-")
    assert store.history.sync(run, 0, b"").version == 1


def test_late_ids_are_taken_while_all_are_known(store: Store) -> None:
    """An id older than all that are kept is taken as long as none was forgotten."""
    run = records.run(store, request_memory=3)
    for at in (300, 200, 100):
        assert not store.history.append(
            run, records.report(), request_id=records.request_id(at), digest=b"contents"
        ).repeated
    records.append(store, run)
    with pytest.raises(RequestTooOld):
        store.history.append(run, records.report(), request_id=records.request_id(50), digest=b"contents")


def test_ids_from_a_clock_that_is_ahead(store: Store) -> None:
    """An id more than 300 s ahead of Redis' clock is refused, so that it makes nobody's ids old; a repeat never is."""
    run = records.run(store, request_memory=3)
    now = time.time_ns() // 1_000_000
    for ahead in (330_000, 4_102_444_800_000):
        one = records.request_id(now + ahead)
        with pytest.raises(InvalidField, match=f"request_id = '{one}': must not be more than 300 s ahead of Redis"):
            store.history.append(run, records.report(), request_id=one, digest=b"contents")
    assert (store.history.sync(run, 0, b"").version, store._database.client.zcard(keys.of_run(run).requests)) == (0, 0)
    one = records.request_id(now + 270_000)
    assert store.history.append(run, records.report(), request_id=one, digest=b"contents").version == 1
    kept = uuid.UUID(records.request_id(now + 600_000)).bytes  # by a server that had no such rule
    store._database.client.zadd(keys.of_run(run).requests, {kept + b"contents" + (7).to_bytes(8, "big"): 0})
    again = store.history.append(run, records.report(), request_id=str(uuid.UUID(bytes=kept)), digest=b"contents")
    assert (again.version, again.repeated) == (7, True)


def test_expected_version(store: Store) -> None:
    """An event that expects another version is refused, and one that was applied is repeated all the same."""
    run = records.run(store)
    one = records.request_id()
    for _ in range(2):
        answer = store.history.append(run, records.report(), request_id=one, digest=b"contents", expected_version=0)
        assert answer.version == 1
    with pytest.raises(VersionMismatch, match="expected_version = 0: the run's version is 1"):
        store.history.append(
            run, records.report(), request_id=records.request_id(), digest=b"contents", expected_version=0
        )


def test_concurrent_repeats(store: Store) -> None:
    """Of concurrent calls with one id one is applied, and the others get its answer."""
    run = records.run(store)
    ids = [records.request_id() for _ in range(20)]
    answers: dict[str, list[int]] = {one: [] for one in ids}

    def job() -> None:
        for one in ids:
            answers[one].append(store.history.append(run, records.report(), request_id=one, digest=b"contents").version)

    threads = [threading.Thread(target=job) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.history.sync(run, 0, b"").version == len(ids)
    assert sorted(set(versions).pop() for versions in answers.values()) == list(range(1, 21))
    assert all(len(versions) == 8 and len(set(versions)) == 1 for versions in answers.values())


def test_lost_history_is_seen(store: Store) -> None:
    """A server that folded events that Redis lost is told so, whatever was appended meanwhile."""
    run = records.run(store)
    for _ in range(3):
        records.append(store, run)
    folded = store.history.sync(run, 0, b"").events[-1]
    _lose_last_event(store, run)
    assert store.history.sync(run, folded.version, folded.nonce).diverged  # beyond the newest
    for _ in range(3):
        records.append(store, run)
        seen = store.history.sync(run, folded.version, folded.nonce)
        assert (seen.diverged, seen.events) == (True, [])  # another event has its version
    assert not store.history.put_snapshot(run, storage_pb2.Snapshot(version=3, nonce=folded.nonce))


def test_a_gap_is_seen(store: Store) -> None:
    """Where events after the known one are gone, the server is told to start from a snapshot."""
    run = records.run(store)
    for _ in range(3):
        records.append(store, run)
    store._database.client.execute_command("XDEL", keys.of_run(run).events, "1-0", "2-0")  # type: ignore[no-untyped-call]
    assert store.history.sync(run, 0, b"").diverged
    assert store.history.sync(run, 1, b"anything").diverged


def test_deleted_run(store: Store) -> None:
    """A deleted run takes no events, also where a run of its name is created again."""
    run = records.run(store)
    store.runs.delete(run)
    again = records.run(store)
    assert again.uid != run.uid
    assert not store.history.sync(run, 0, b"").exists
    with pytest.raises(RunReplaced, match=run.uid):
        records.append(store, run)
    with pytest.raises(RunReplaced):
        store.history.events(run, 0, 1)
    with pytest.raises(RunReplaced):
        store.history.snapshot(run)
    with pytest.raises(RunReplaced):
        store.history.oldest(run)
    assert not store.history.put_snapshot(run, storage_pb2.Snapshot(version=0))
    assert store.history.sync(again, 0, b"").version == 0


def test_pages(store: Store) -> None:
    """Thousands of waiting events are read in pages of bounded size, without a gap between them."""
    run = records.run(store)
    small = records.report()
    for _ in range(1500):
        records.append(store, run, small)
    seen = store.history.sync(run, 0, b"")
    assert len(seen.events) == 1024
    rest = store.history.sync(run, seen.events[-1].version, seen.events[-1].nonce)
    assert [event.version for event in rest.events] == list(range(1025, 1501))
    large = records.report(job="j" * 300_000)
    for _ in range(32):
        records.append(store, run, large)
    assert 4 <= len(store.history.sync(run, 1500, rest.events[-1].nonce).events) <= 12
    listed = store.history.events(run, 1490, 10_000)
    assert [event.version for event in listed.events] == list(range(1491, 1514))  # 4 MiB hold 13 large ones
    assert listed.version == 1532


def test_listing_has_a_size(store: Store) -> None:
    """A listing ends before the event that would make it more than 4 MiB, but has one event at least."""
    run = records.run(store)
    for size in (3 << 20, 1 << 20, 5 << 20, 100):
        records.append(store, run, records.report(job="j" * size))
    assert [event.version for event in store.history.events(run, 0, 10).events] == [1]
    assert [event.version for event in store.history.events(run, 1, 10).events] == [2]
    assert [event.version for event in store.history.events(run, 2, 10).events] == [3]
    assert [event.version for event in store.history.events(run, 3, 10).events] == [4]


def test_listing_many(store: Store) -> None:
    """A listing of thousands of small events is complete, whatever their number."""
    run = records.run(store)
    for _ in range(2100):
        records.append(store, run)
    for after, limit in ((0, 10_000), (0, 2100), (3, 1024), (0, 1025), (76, 2024), (2, 7), (0, 8), (2092, 8)):
        listed = store.history.events(run, after, limit).events
        assert [event.version for event in listed] == list(range(after + 1, min(2100, after + limit) + 1))


def test_events(store: Store) -> None:
    """The history is listed from any version on, with the run's version beside it."""
    run = records.run(store)
    assert store.history.events(run, 0, 10).events == []
    for task in range(10):
        records.append(store, run, records.report(task))
    page = store.history.events(run, 3, 4)
    assert page.version == 10
    assert [event.event.report.tasks[0] for event in page.events] == [3, 4, 5, 6]
    assert isinstance(page.events[0], StoredEvent)
    assert [event.version for event in store.history.events(run, 0, 10).events] == list(range(1, 11))
    assert store.history.events(run, 10, 10).events == []


def _lose_last_event(store: Store, run: storage_pb2.RunRecord) -> None:
    """Takes the newest event back, as a failover to a lagging replica does."""
    names, client = keys.of_run(run), store._database.client
    entries = store.history.events(run, 0, 10_000).events
    client.delete(names.events)
    for event in entries[:-1]:
        entry = {b"n": event.nonce, b"e": event.event.SerializeToString()}
        client.xadd(names.events, entry, f"{event.version}-0")  # type: ignore[arg-type]
    client.hset(names.run, mapping={"version": len(entries) - 1, "nonce": entries[-2].nonce})
