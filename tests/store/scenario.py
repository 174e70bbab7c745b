"""Everything that a store does, once: for connections and servers of every kind."""

from __future__ import annotations

from bots_server.storage.v1 import storage_pb2
from bots_server.store import Part, Store, keys
from tests.store import records


def everything(store: Store, name: str = "guru-math") -> None:
    """Creates, uses and deletes a dataset and its runs."""
    store.ping()
    of = records.dataset(store, name)
    assert store.datasets.list() == [of]
    assert store.datasets.get(name) == of
    assert len(list(store.datasets.columns(of))) == 2
    assert store.datasets.strata(of).weak
    run, created = store.runs.create(records.run_record(of, history=4, history_stride=2, request_memory=1000))
    assert created
    assert (store.runs.list(of), store.runs.get(of, run.name), store.datasets.run_count(of)) == ([run], run, 1)

    offer = storage_pb2.Offer(selection_id="one", tasks=[1, 2, 3])
    for repeated in (False, True):
        claimed = store.leases.claim(
            run, [Part(2, [1, 2, 3])], offer, request_id="r", digest=b"d", lease_seconds=60, allow_fewer=False
        )
        assert (claimed.taken, claimed.repeated) == ([0, 1], repeated)
    one = records.request_id()
    for repeated in (False, True):
        answer = store.history.append(
            run, records.report(1), request_id=one, digest=b"contents", selection_id="two", complete=True
        )
        assert (answer.version, answer.repeated) == (1, repeated)
    assert store.history.sync(run, 0, b"").leases == 2
    assert store.leases.release(run, "one") == 2

    state = storage_pb2.Snapshot(version=1, updates=1)
    restored = storage_pb2.Event(restored=storage_pb2.Restored(version=1, state_uid="a" * 32))
    store.history.append(run, restored, request_id=records.request_id(), digest=b"contents", state=state)
    assert store.checkpoints.state(run, "a" * 32) == state
    for version in range(3, 13):
        assert records.append(store, run).version == version
        assert store.history.put_snapshot(run, records.snapshot(store, run, version))
    assert store.history.oldest(run) == 8
    assert store.checkpoints.state(run, "a" * 32) is None
    newest = store.history.snapshot(run)
    assert newest is not None
    assert store.history.sync(run, newest.version, newest.nonce).events == []

    checkpoint = storage_pb2.Checkpoint(name="best", version=1, state_uid="b" * 32)
    assert store.checkpoints.put(run, checkpoint, state, ttl_seconds=60).expire_time_ms
    assert store.checkpoints.put(run, checkpoint, state) == checkpoint
    assert store.checkpoints.get(run, "best") == (checkpoint, state)
    assert store.checkpoints.list(run) == [checkpoint]
    store.checkpoints.delete(run, "best")
    fork, _ = store.runs.create(records.run_record(of, "fork"), newest)
    assert store.history.snapshot(fork) == storage_pb2.Snapshot(version=0, updates=12)
    store.runs.delete(fork)
    store._database.client.unlink(keys.DATASETS)
    assert store.datasets.list() == [of]
    store.datasets.delete(name, delete_runs=True)
    assert store.datasets.list() == []
