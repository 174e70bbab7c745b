"""What identities use, and what a run's past takes, in bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from bots_server.errors import QuotaExceeded
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Part, Store, Usage, connect
from tests.store import records

KILOBYTE = 1024


def dataset(store: Store, name: str, owner: str) -> storage_pb2.DatasetRecord:
    """Returns a dataset of 1,024 tasks that is created here."""
    with store.datasets.upload(name) as upload:
        upload.put(records.columns(0))
        record = storage_pb2.DatasetRecord(size=1024, fingerprint=b"f", owner=owner)
        return upload.commit(record, storage_pb2.StrataTable(references=b"w" * 8))[0]


def run(store: Store, of: storage_pb2.DatasetRecord, name: str, owner: str) -> storage_pb2.RunRecord:
    """Returns a run that is created here."""
    record = records.run_record(of, name)
    record.owner = owner
    return store.runs.create(record)[0]


def large(store: Store, to: storage_pb2.RunRecord, size: int = KILOBYTE) -> int:
    """Appends an event of some size. Returns the version after it."""
    event = storage_pb2.Event(retired=storage_pb2.Retired(reason="x" * size), min_reader=1)
    return records.append(store, to, event).version


def state(size: int) -> storage_pb2.Snapshot:
    """Returns a state of some size."""
    return storage_pb2.Snapshot(version=1, state=storage_pb2.State(total=bytes(size)))


def restore(store: Store, of: storage_pb2.RunRecord, uid: str, size: int) -> None:
    """Appends a restored event with a state of some size."""
    event = storage_pb2.Event(restored=storage_pb2.Restored(version=1, state_uid=uid), min_reader=1)
    store.history.append(of, event, request_id=records.request_id(), digest=b"contents", state=state(size))


def stored(store: Store, of: storage_pb2.RunRecord) -> int:
    """Returns the bytes of a run's events, snapshots and states, and of its answers, as they lie in Redis."""
    redis, key = records.redis_of(store), records.KEYS.of_run(of)
    values = (
        [event[b"e"] for _, event in redis.xrange(key.events)] + redis.hvals(key.snapshots) + redis.hvals(key.states)
    )
    answers = redis.hgetall(key.answers)
    answers.pop(b"bytes", None)
    return sum(map(len, values)) + sum(map(len, answers.values()))


@pytest.fixture
def small(redis_url: str) -> Iterator[Store]:
    """A store that keeps 20 kB of a run's history, and whose identities may have 2 of everything, and 50 kB."""
    store = Store(
        connect(redis_url),
        history_bytes=20 * KILOBYTE,
        quotas=Usage(datasets=2, tasks=2048, runs=2, checkpoints=2, bytes=50 * KILOBYTE),
    )
    yield store
    store.close()


def test_use_counts_for_the_creator(store: Store) -> None:
    """Datasets and tasks for the dataset's creator; runs, their checkpoints and bytes for the run's."""
    one, two = dataset(store, "one", "alice"), dataset(store, "two", "bob")
    alices, bobs = run(store, one, "main", "alice"), run(store, one, "main-2", "bob")
    large(store, bobs)
    kept = storage_pb2.Checkpoint(name="best", version=1, state_uid="a" * 32)
    store.checkpoints.put(bobs, kept, state(100))
    use = store.quotas.use()
    assert (use["alice"].datasets, use["alice"].tasks, use["alice"].runs, use["alice"].checkpoints) == (1, 1024, 1, 0)
    assert (
        use["alice"].bytes == one.bytes == records.columns(0).ByteSize() + 10 + 8  # the strata, and checksums
    )
    assert (use["bob"].datasets, use["bob"].tasks, use["bob"].runs, use["bob"].checkpoints) == (1, 1024, 1, 1)
    assert use["bob"].bytes == two.bytes + stored(store, bobs)
    store.runs.delete(alices)
    store.datasets.delete("one", delete_runs=True)
    assert store.quotas.use() == {"bob": Usage(datasets=1, tasks=1024, bytes=two.bytes)}


@pytest.mark.parametrize("seed", range(5))
def test_bytes_are_those_that_are_stored(small: Store, seed: int) -> None:
    """After any order of events, restores, snapshots, checkpoints and selections, a run's use is what lies in Redis."""
    rng = random.Random(seed)
    of = run(small, dataset(small, "one", ""), "main", "alice")
    checkpoints = [f"c{number}" for number in range(5)]
    for step in range(120):
        version = small.runs.current(of).version
        name, size = rng.choice(checkpoints), rng.randrange(3000)
        match rng.choice(("event", "event", "restore", "snapshot", "put", "delete", "claim")):
            case "event":
                large(small, of, size)
            case "restore":
                restore(small, of, f"{step:032x}", size)
            case "snapshot" if version:
                snapshot = records.snapshot(small, of, version)
                snapshot.state.total = bytes(size)
                small.history.put_snapshot(of, snapshot)
            case "put" if small.checkpoints.find(of, name) is None:
                small.checkpoints.put(of, storage_pb2.Checkpoint(name=name, state_uid=f"{step:032x}"), state(size))
            case "delete" if small.checkpoints.find(of, name) is not None:
                small.checkpoints.delete(of, name)
            case "claim":
                offer = storage_pb2.Offer(selection_id=f"{step:032x}", tasks=range(size))
                small.leases.claim(of, [Part(1, range(size + 1))], offer, request_id=records.request_id(), digest=b"d")
        use = small.quotas.use()["alice"]
        assert (use.bytes, use.checkpoints) == (stored(small, of), len(small.checkpoints.list(of)))


def test_history_is_bounded_in_bytes(small: Store) -> None:
    """Behind the newest snapshot no more than history_bytes are kept, whatever the size of events and states."""
    of = run(small, dataset(small, "one", ""), "main", "alice")
    due = 0
    for step in range(1, 201):
        if step % 10 == 5:
            restore(small, of, f"{step:032x}", 3 * KILOBYTE)
        appended = records.append(
            small, of, storage_pb2.Event(retired=storage_pb2.Retired(reason="x" * KILOBYTE), min_reader=1)
        )
        if appended.snapshot_due:
            due += 1
            assert small.history.put_snapshot(of, records.snapshot(small, of, appended.version))
            assert stored(small, of) < 26 * KILOBYTE  # with the event at the oldest version, and its state
            oldest = small.history.oldest(of)
            assert appended.version - 20 <= oldest <= appended.version
            assert oldest == 0 or small.history.snapshot(of, oldest) is not None
    assert due > 20


def test_a_snapshot_larger_than_the_bound_is_kept_alone(small: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each snapshot then takes the place of the one before, and of the events behind it."""
    records.keep(monkeypatch, stride=1)
    of = run(small, dataset(small, "one", ""), "main", "alice")
    large(small, of)
    for version in (2, 3, 4):
        assert large(small, of) == version
        snapshot = records.snapshot(small, of, version)
        snapshot.state.total = bytes(30 * KILOBYTE)
        assert small.history.put_snapshot(of, snapshot)
        assert small.history.oldest(of) == (0 if version == 2 else version)
    ((_, event),) = records.redis_of(small).xrange(records.KEYS.of_run(of).events)
    assert stored(small, of) == snapshot.ByteSize() + 4 + len(event[b"e"])  # 4: checksum


def test_answers_are_bounded_in_bytes(small: Store) -> None:
    """Of a hundred selections of 1,000 tasks the newest answers are kept; the repeat of an old one selects anew."""
    of = run(small, dataset(small, "one", ""), "main", "alice")
    ids = [records.request_id() for _ in range(100)]

    def repeated(number: int) -> bool:
        offer = storage_pb2.Offer(selection_id=f"{number:032x}", tasks=range(1000))
        parts = [Part(1000, range(1000))]
        return small.leases.claim(of, parts, offer, request_id=ids[number], digest=b"d").repeated

    assert not any(repeated(number) for number in range(100))
    assert stored(small, of) <= 20 * KILOBYTE
    assert repeated(99)
    assert repeated(98)
    assert not repeated(0)
    assert records.redis_of(small).pttl(records.KEYS.of_run(of).answers) > 3_500_000


@pytest.mark.parametrize(("field", "by"), [("datasets", 2), ("tasks", 1025), ("runs", 2), ("bytes", 46 * KILOBYTE)])
def test_quota_is_refused_with_setting_limit_and_use(small: Store, field: str, by: int) -> None:
    """What would exceed a quota raises QuotaExceeded, for its owner alone."""
    run(small, dataset(small, "one", "alice"), "main", "alice")
    small.quotas.require("alice", **{field: by - 1024 if field == "bytes" else by - 1})
    small.quotas.require("bob", **{field: by})
    use, limit = getattr(small.quotas.use()["alice"], field), getattr(small.quotas.limits, field)
    with pytest.raises(QuotaExceeded) as refused:
        small.quotas.require("alice", **{field: by})
    assert str(refused.value) == f"quota_{field}: got {use} {field} in use and {by} more, must be at most {limit}"
