"""Everything that a store does, once: for connections and servers of every kind."""

from __future__ import annotations

from unittest.mock import patch

from bots_server.storage.v1 import storage_pb2
from bots_server.store import Holder, Part, Store, history
from bots_server.store.keys import DATASETS
from tests.store import records


def everything(store: Store, name: str = "guru-math") -> None:
    """Creates, uses and deletes a dataset and its runs."""
    with patch.object(history, "HISTORY_EVENTS", 4), patch.object(history, "HISTORY_STRIDE", 2):
        _everything(store, name)


def _everything(store: Store, name: str) -> None:
    store.ping()
    of = records.dataset(store, name)
    assert store.datasets.list() == [of]
    assert store.datasets.get(name) == of
    assert len(list(store.datasets.columns(of))) == 2
    assert store.datasets.strata(of).references
    run, created = store.runs.create(records.run_record(of))
    assert created
    assert [listed.record for listed in store.runs.list(of)] == [run]
    assert (store.runs.get(of, run.name), store.runs.count(of)) == (run, 1)

    offer = storage_pb2.Offer(selection_id="one", tasks=[1, 2, 3])
    for repeated in (False, True):
        claimed = store.leases.claim(
            run,
            [Part(2, [1, 2, 3])],
            offer,
            request_id="r",
            digest=b"d",
            holder=Holder(job="j"),
            incarnation="i",
            lease_seconds=60,
        )
        assert (claimed.taken, claimed.repeated) == ([0, 1], repeated)
    one = records.request_id()
    assert store.history.repeated(run, one, b"contents") is None
    for repeated in (False, True):
        answer = store.history.append(run, records.report(1, selection_id="one"), request_id=one, digest=b"contents")
        assert (answer.version, answer.repeated) == (1, repeated)
    assert store.history.repeated(run, one, b"contents") == answer
    assert store.history.sync(run, 0, b"").live_leases == 1
    assert store.leases.release(run, "one", [3]) == 0
    assert store.leases.release(run, "one") == 1

    state = storage_pb2.Snapshot(version=1, state=storage_pb2.State(updates=1))
    restored = storage_pb2.Event(job="j", restored=storage_pb2.Restored(version=1, state_uid="a" * 32))
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
    assert store.runs.current(run).version == 12

    checkpoint = storage_pb2.Checkpoint(name="best", version=1, state_uid="b" * 32)
    kept = store.checkpoints.put(run, checkpoint, state, ttl_seconds=60)
    assert kept.expire_time_ms >= kept.create_time_ms + 60_000
    kept = store.checkpoints.put(run, checkpoint, state)
    assert kept.expire_time_ms == 0
    assert store.checkpoints.get(run, "best") == (kept, state)
    assert store.checkpoints.list(run) == [kept]
    store.checkpoints.delete(run, "best")
    fork, _ = store.runs.create(records.run_record(of, "fork"), newest)
    start = store.history.snapshot(fork)
    assert start is not None
    assert (start.version, start.nonce, start.state.updates) == (0, b"", 12)
    store.runs.delete(fork)
    store._database.command("UNLINK", DATASETS)
    assert store.datasets.list() == [of]
    store.datasets.delete(name, delete_runs=True)
    assert store.datasets.list() == []
