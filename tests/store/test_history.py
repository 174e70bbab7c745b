"""The stream of events: appending, reading, and the memory of request ids."""

from __future__ import annotations

import threading

import pytest

from bots_server.errors import RequestIdReused, RequestTooOld, RunDamaged, RunReplaced, VersionMismatch
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Store, StoredEvent
from bots_server.store.seal import checksum, seal
from tests.store import records


def test_versions_have_no_gaps(store: Store) -> None:
    """Each event makes the next version, and is read back as it was appended, with its time by Redis' clock."""
    run = records.run(store)
    seconds, microseconds = records.redis_of(store).time()
    assert [records.append(store, run, records.report(task)).version for task in range(5)] == [1, 2, 3, 4, 5]
    seen = store.history.sync(run, 0, b"")
    assert (seen.diverged, seen.version, seen.snapshot_version, seen.leases) == (False, 5, 0, 0)
    assert [event.version for event in seen.events] == [1, 2, 3, 4, 5]
    assert [event.event for event in seen.events] == [records.report(task) for task in range(5)]
    assert len({event.nonce for event in seen.events}) == 5
    times = [event.time_ms for event in seen.events]
    assert seconds * 1000 + microseconds // 1000 <= times[0]
    assert times == sorted(times)
    assert times == [event.time_ms for event in store.history.events(run, 0, 5).events]


def test_sync_tells_what_is_new(store: Store) -> None:
    """A sync returns every event that was appended before it (guarantee 2)."""
    run = records.run(store)
    version, nonce = 0, b""
    for task in range(3):
        records.append(store, run, records.report(task))
        seen = store.history.sync(run, version, nonce)
        assert [event.event.report.tasks[0] for event in seen.events] == [task]
        version, nonce = seen.events[-1].version, seen.events[-1].nonce
    seen = store.history.sync(run, version, nonce)
    assert (seen.diverged, seen.version, seen.events) == (False, 3, [])


def again(
    store: Store, run: storage_pb2.RunRecord, request_id: str, age_ms: int = 0, digest: bytes = b"contents"
) -> tuple[int, bool]:
    """Returns the version and whether it is a repeat."""
    answer = store.history.append(run, records.report(), request_id=request_id, digest=digest, request_age_ms=age_ms)
    return answer.version, answer.repeated


def test_a_repeat_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeat returns the first answer while its id is remembered, and is refused once it may have been forgotten
    (guarantee 1). Ids are remembered in order of arrival, whatever kind of UUID they are.
    """
    records.keep(monkeypatch, request_ids=3)
    run = records.run(store)
    ids = [f"{'fedcba'[i]}0000000-0000-{4 if i % 2 else 7}000-8000-000000000000" for i in range(5)]
    for version, one in enumerate(ids[:3], start=1):
        assert again(store, run, one) == (version, False)
        assert again(store, run, one) == (version, True)
    for version, one in enumerate(ids[3:], start=4):
        assert again(store, run, one) == (version, False)
    assert again(store, run, ids[2], age_ms=3_600_000) == (3, True)
    for one in ids[:2]:
        with pytest.raises(RequestTooOld, match=one):
            again(store, run, one, age_ms=60_000)
    assert store.history.sync(run, 0, b"").version == 5
    key = records.KEYS.of_run(run)
    assert (records.redis_of(store).hlen(key.requests), records.redis_of(store).llen(key.arrivals)) == (3, 3)


def test_an_unknown_id_is_accepted_if_it_was_first_sent_after_the_forgotten_ones(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller says how long ago it first sent an id. If that was after the newest forgotten id arrived, the id is
    new; otherwise it may be one of those.
    """
    records.keep(monkeypatch, request_ids=2)
    run = records.run(store)
    assert again(store, run, records.request_id(), age_ms=86_400_000) == (1, False)  # nothing was forgotten yet
    for version in (2, 3):
        assert again(store, run, records.request_id(), age_ms=86_400_000) == (version, False)
    redis = records.redis_of(store)
    seconds, microseconds = redis.time()
    now = seconds * 1000 + microseconds // 1000
    assert now - 10_000 < int(redis.hget(records.KEYS.of_run(run).run, "forgotten")) <= now
    records.set_head(store, run, forgotten=now - 600_000)  # as if it had arrived ten minutes ago
    assert again(store, run, records.request_id()) == (4, False)
    records.set_head(store, run, forgotten=now - 600_000)
    assert again(store, run, records.request_id(), age_ms=590_000) == (5, False)
    records.set_head(store, run, forgotten=now - 600_000)
    late = records.request_id()
    with pytest.raises(RequestTooOld, match=late):
        again(store, run, late, age_ms=610_000)
    assert store.history.sync(run, 0, b"").version == 5


def test_reports_are_accepted_after_the_clock_of_redis_went_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a failover to another machine: what is sent for the first time is new; what may be a repeat is not."""
    records.keep(monkeypatch, request_ids=2)
    run = records.run(store)
    for version in range(1, 4):
        assert again(store, run, records.request_id()) == (version, False)
    redis = records.redis_of(store)
    seconds, _ = redis.time()
    ahead = (seconds + 600) * 1000  # as if the clock had been ten minutes ahead
    records.set_head(store, run, forgotten=ahead)
    late = records.request_id()
    with pytest.raises(RequestTooOld, match=late):
        again(store, run, late, age_ms=1000)
    for version in range(4, 8):  # which forgets ids that arrived by the clock of now
        assert again(store, run, records.request_id()) == (version, False)
    assert int(redis.hget(records.KEYS.of_run(run).run, "forgotten")) == ahead  # also when the clock goes forward again


def test_the_clock_of_the_caller_decides_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that carry the time of a clock that is years ahead or behind are accepted, and make no other id old."""
    records.keep(monkeypatch, request_ids=2)
    run = records.run(store)
    future, past = "ffffffff-ffff-7fff-bfff-ffffffffffff", "00000000-0001-7000-8000-000000000000"
    assert again(store, run, future) == (1, False)
    assert again(store, run, past) == (2, False)
    redis, key = records.redis_of(store), records.KEYS.of_run(run).run
    for version in range(3, 6):
        assert again(store, run, records.request_id()) == (version, False)
        records.set_head(store, run, forgotten=int(redis.hget(key, "forgotten")) - 1)  # so that no two times are equal


def test_the_first_answer_is_found_before_anything_is_looked_up(store: Store) -> None:
    """`repeated` returns the first answer to an id, and None for an id that is not known."""
    run = records.run(store)
    one = records.request_id()
    assert store.history.repeated(run, one, b"contents") is None
    records.append(store, run)
    assert again(store, run, one) == (2, False)
    records.append(store, run)
    store.history.put_snapshot(run, records.snapshot(store, run, 3))
    first = store.history.repeated(run, one, b"contents")
    assert first is not None
    assert (first.version, first.repeated, first.snapshot_version) == (2, True, 3)
    with pytest.raises(RequestIdReused, match=one):
        store.history.repeated(run, one, b"another-")
    assert store.history.repeated(run, records.request_id(), b"contents") is None


def test_a_restore_is_repeated_after_its_checkpoint_was_deleted(store: Store) -> None:
    """The repeat of a restore is known by its id alone, whatever was deleted since."""
    run = records.run(store)
    records.append(store, run)
    checkpoint = storage_pb2.Checkpoint(name="best", version=1, state_uid="b" * 32)
    store.checkpoints.put(run, checkpoint, storage_pb2.Snapshot(version=1))
    restored = storage_pb2.Event(restored=storage_pb2.Restored(version=1, state_uid="a" * 32, checkpoint="best"))
    one = records.request_id()
    _, state = store.checkpoints.get(run, "best")
    store.history.append(run, restored, request_id=one, digest=b"contents", state=state)
    store.checkpoints.delete(run, "best")
    first = store.history.repeated(run, one, b"contents")
    assert first is not None
    assert first.version == 2


def test_an_id_with_other_content_is_refused(store: Store) -> None:
    """A request id that was used for other content is refused, and nothing of it is stored."""
    run = records.run(store)
    one = records.request_id()
    store.history.append(run, records.report(1), request_id=one, digest=b"one-----")
    with pytest.raises(RequestIdReused, match=one):
        store.history.append(run, records.report(2), request_id=one, digest=b"another-")
    assert store.history.sync(run, 0, b"").version == 1


def test_an_unexpected_version_is_refused(store: Store) -> None:
    """An event that expects another version is refused; the repeat of one that was applied is not."""
    run = records.run(store)
    one = records.request_id()
    for _ in range(2):
        answer = store.history.append(run, records.report(), request_id=one, digest=b"contents", expected_version=0)
        assert answer.version == 1
    with pytest.raises(VersionMismatch, match="expected_version: got 0, must be the run's version, 1"):
        store.history.append(
            run, records.report(), request_id=records.request_id(), digest=b"contents", expected_version=0
        )


def test_one_of_concurrent_repeats_is_applied(store: Store) -> None:
    """If calls with one id run at the same time, one is applied, and the others get its answer."""
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
    """A server that has folded events that Redis lost is told so, whatever was appended meanwhile."""
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
    """If events are missing, the run is damaged: it is neither read nor appended to."""
    run = records.run(store)
    for _ in range(3):
        records.append(store, run)
    records.redis_of(store).execute_command("XDEL", records.KEYS.of_run(run).events, "1-0", "2-0")
    for call in (lambda: store.history.sync(run, 0, b""), lambda: records.append(store, run)):
        with pytest.raises(RunDamaged, match="events lacks 2 events"):
            call()


def test_a_deleted_run_accepts_no_events(store: Store) -> None:
    """A deleted run accepts no events, also if a run of its name is created again."""
    run = records.run(store)
    store.runs.delete(run)
    again = records.run(store)
    assert again.uid != run.uid
    with pytest.raises(RunReplaced, match=run.uid):
        store.history.sync(run, 0, b"")
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


def test_a_sync_is_read_in_pages(store: Store) -> None:
    """Thousands of new events are read in pages of bounded size, without a gap between them."""
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
    assert [event.version for event in listed.events] == list(range(1491, 1501))  # 64 KiB hold no large one
    assert listed.version == 1532


def test_a_listing_has_a_bounded_size(store: Store) -> None:
    """A listing ends before the event that would make it more than 64 KiB, but has at least one event."""
    run = records.run(store)
    for size in (48 << 10, 16 << 10, 80 << 10, 100):
        records.append(store, run, records.report(job="j" * size))
    assert [event.version for event in store.history.events(run, 0, 10).events] == [1]
    assert [event.version for event in store.history.events(run, 1, 10).events] == [2]
    assert [event.version for event in store.history.events(run, 2, 10).events] == [3]
    assert [event.version for event in store.history.events(run, 3, 10).events] == [4]


def test_a_long_listing_is_complete(store: Store) -> None:
    """The pages of a listing of thousands of small events are complete, whatever their number."""
    run = records.run(store)
    for _ in range(2100):
        records.append(store, run)
    for after, limit in ((0, 10_000), (0, 2100), (3, 1024), (0, 1025), (76, 2024), (2, 7), (0, 8), (2092, 8)):
        end, listed = min(2100, after + limit), list[int]()
        while after + len(listed) < end:
            page = store.history.events(run, after + len(listed), limit - len(listed)).events
            listed += [event.version for event in page]
        assert listed == list(range(after + 1, end + 1))


def test_the_history_is_listed_from_any_version(store: Store) -> None:
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
    """Removes the newest event, as a failover to a lagging replica does."""
    names, client = records.KEYS.of_run(run), records.redis_of(store)
    entries = store.history.events(run, 0, 10_000).events
    client.delete(names.events)
    for event in entries[:-1]:
        value = seal(event.event.SerializeToString(), event.nonce)
        check = checksum(f"{event.version}-0", event.nonce, event.time_ms)
        entry = {b"n": event.nonce, b"t": event.time_ms, b"e": value, b"c": check}
        client.xadd(names.events, entry, f"{event.version}-0")
    records.set_head(store, run, version=len(entries) - 1, nonce=entries[-2].nonce)
