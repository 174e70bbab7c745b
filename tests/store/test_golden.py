"""Stored bytes of an earlier build are read by this one.

`golden/v1.txt` fills a Redis. It is never written again after the first release: a field that is added to the protos
gets a file of its own (`python -m tests.store.test_golden v2` writes it), and this test reads them all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bots_server.storage.v1 import storage_pb2
from bots_server.store import Holder, Part, Store, connect
from bots_server.store.seal import checksum
from tests.store import records
from tests.valkey import valkey

GOLDEN = Path(__file__).parent / "golden"

ONE, HALF, TWO = b"\0\0\0\0\0\0\xf0?", b"\0\0\0\0\0\0\xe0?", b"\0\0\0\0\0\0\0@"  # f64

DATASET = storage_pb2.DatasetRecord(
    name="guru-math",
    uid="d" * 32,
    size=3,
    fingerprint=b"fingerprint",
    reference_grid=0.0625,
    tags=[storage_pb2.NamedCount(name="algebra", tasks=2), storage_pb2.NamedCount(name="geometrie é", tasks=1)],
    has_ids=True,
    strata=1,
    references=[storage_pb2.NamedCount(name="weak", tasks=3), storage_pb2.NamedCount(name="strong", tasks=2)],
    features=["length"],
    chunks=1,
    create_time_ms=1_700_000_000_000,
    min_reader=1,
    owner="alice",
    bytes=104,
)
STRATA = storage_pb2.StrataTable(references=b"\0\0\x80>\0\0@?", prior_alpha=ONE, prior_beta=ONE)
COLUMNS = storage_pb2.TaskColumns(
    size=3,
    stratum=bytes(12),
    tag=b"\0\0\0\0\0\0\0\0\1\0\0\0",
    ids=b"abcdef",
    id_lengths=b"\1\0\0\0\2\0\0\0\3\0\0\0",
    features=b"\0\0\x80?\0\0\0@\0\0\xc0\x7f",
)
HYPERPARAMETERS = storage_pb2.Hyperparameters(
    target=0.5,
    rest=0.5,
    uniform_fraction=0.25,
    temperature=0,
    greedy=False,
    rollouts_per_update=64,
    forgetting=0.1,
    implicit_weight=0.1,
    implicit_rollouts=0,
)
RUN = storage_pb2.RunRecord(
    name="qwen-7b",
    uid="a" * 32,
    dataset="guru-math",
    dataset_uid="d" * 32,
    model="interpolation",
    hyperparameters=HYPERPARAMETERS,
    requested=storage_pb2.RunRequest(
        hyperparameters=storage_pb2.Hyperparameters(rollouts_per_update=64),
        fork_from=storage_pb2.ForkPoint(run="qwen-1b"),
        policy="qwen",
    ),
    forked_from=storage_pb2.ForkPoint(
        dataset="guru-math", run="qwen-1b", version=7, run_uid="b" * 32, kept_tasks=2, new_tasks=1, dropped_tasks=4
    ),
    policy="qwen",
    create_time_ms=1_700_000_000_000,
    min_reader=1,
    owner="alice",
)
REPORTED = storage_pb2.Event(
    job="node-3",
    request_id="018bcfe5-6801-7000-8000-000000000001",
    report=storage_pb2.Report(
        tasks=[0, 2],
        successes=[1.5, 0],
        rollouts=[4, 8],
        effective=[True, False],
        selection_id="5" * 32,
        policy_step=12,
        selection_policy_step=11,
        outlier=storage_pb2.Outlier(deviation=6.5, rollouts_ratio=2),
        shadow_tasks=[0, 1],
    ),
    min_reader=1,
)
CHANGED = storage_pb2.Event(
    request_id="01234567-6802-4000-8000-000000000002",
    hyperparameters_changed=storage_pb2.HyperparametersChanged(
        hyperparameters=storage_pb2.Hyperparameters(target=0.625, greedy=True)
    ),
    min_reader=1,
)
RESTORED = storage_pb2.Event(
    request_id="018bcfe5-6803-7000-8000-000000000003",
    restored=storage_pb2.Restored(version=1, state_uid="c" * 32, checkpoint="best"),
    min_reader=1,
)
RETIRED = storage_pb2.Event(
    request_id="018bcfe5-6803-7000-8000-000000000004",
    retired=storage_pb2.Retired(tasks=[1], reason="broken verifier"),
    min_reader=1,
)
UNDONE = storage_pb2.Event(
    request_id="018bcfe5-6803-7000-8000-000000000005",
    undone=storage_pb2.Undone(version=1, state_uid="f" * 32),
    min_reader=1,
)
OUTCOMES = storage_pb2.Outcomes(tasks=b"\1\0\0\0", successes=ONE, rollouts=TWO, effective=b"\1")
STATE = storage_pb2.Snapshot(
    version=1,
    nonce=b"12345678",
    min_reader=1,
    model="interpolation",
    hyperparameters=HYPERPARAMETERS,
    state=storage_pb2.State(
        updates=1,
        interpolation=storage_pb2.Interpolation(
            capability=0.25, baseline_alpha=ONE, baseline_beta=TWO, tasks=b"\2\0\0\0", alpha=HALF, beta=ONE
        ),
        pending=OUTCOMES,
        coverage=storage_pb2.Coverage(
            evaluations=4,
            evaluations_in_half=1,
            ever=storage_pb2.TaskSet(bits=b"\5", added=b"\1\0\0\0"),
            current=storage_pb2.TaskSet(added=b"\1\0\0\0"),
            previous=storage_pb2.TaskSet(bits=b"\5"),
        ),
        total=ONE,
        recent=HALF,
    ),
    open=[storage_pb2.OpenUpdate(selection_id="5" * 32, outcomes=OUTCOMES, policy_lag=1, shadow_tasks=b"\1\0\0\0")],
    retired=b"\1\0\0\0",
    last_report_time_ms=1_700_000_000_001,
)
ITEM_RESPONSE = storage_pb2.Snapshot(
    version=2,
    model="item_response",
    hyperparameters=storage_pb2.Hyperparameters(target=0.5, residual_memory=0.99, drift=0.01),
    state=storage_pb2.State(
        updates=6,
        item_response=storage_pb2.ItemResponse(
            mean=ONE,
            covariance=HALF,
            log_likelihood=ONE * 6,
            tasks=b"\2\0\0\0",
            residual_mean=HALF,
            residual_variance=ONE,
            residual_memory=ONE,
        ),
    ),
    min_reader=1,
)
START = storage_pb2.Snapshot(state=storage_pb2.State(updates=5), min_reader=1)
OFFER = storage_pb2.Offer(
    selection_id="selection-1",
    version=3,
    tasks=[2, 0, 1],
    means=[0.5, 0.25, 0.75],
    draws=[0.5, 0.375, 0.625],
    resting=[False, True, False],
)
CHECKPOINT = storage_pb2.Checkpoint(name="best", version=1, state_uid="e" * 32, create_time_ms=1_700_000_000_000)
EVENTS = (REPORTED, CHANGED, RESTORED, RETIRED, UNDONE)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.txt")), ids=lambda file: file.stem)
def test_stored_bytes_are_read(store: Store, file: Path) -> None:
    """Each record, event, snapshot, answer and id that an earlier build stored is read back as it was meant."""
    client = records.redis_of(store)
    for line in file.read_text().splitlines()[1:]:
        client.execute_command(*(_decoded(word) for word in line.split(" ")))
    assert store.datasets.list() == [DATASET]
    assert store.datasets.strata(DATASET) == STRATA
    assert list(store.datasets.columns(DATASET)) == [COLUMNS]
    (listed,) = store.runs.list(DATASET)
    assert (listed.record, listed.version, listed.hyperparameters) == (RUN, 5, HYPERPARAMETERS)
    seen = store.history.sync(RUN, 0, b"")
    assert tuple(event.event for event in seen.events) == EVENTS
    assert [event.time_ms for event in seen.events] == [1_700_000_000_001] * 5
    assert (seen.version, seen.snapshot_version, seen.diverged) == (5, 2, False)
    assert store.history.snapshot(RUN, 1) == START
    snapshot = store.history.snapshot(RUN)
    assert snapshot is not None
    assert snapshot.nonce == seen.events[1].nonce
    snapshot.nonce = b""
    assert snapshot == ITEM_RESPONSE
    assert [store.checkpoints.state(RUN, uid * 32) for uid in "cf"] == [STATE, STATE]
    assert store.checkpoints.get(RUN, "best") == (CHECKPOINT, STATE)
    (lease,) = store.leases.list(RUN)
    assert (lease.selection_id, lease.holder.job, lease.tasks) == ("selection-1", "node-3", 2)
    assert store.leases.release(RUN, "selection-1") == 2
    claimed = store.leases.claim(RUN, [Part(1, [1])], storage_pb2.Offer(), request_id="request-1", digest=b"digest")
    assert (claimed.repeated, claimed.taken, claimed.offer) == (True, [0, 1], OFFER)
    again = store.history.append(RUN, REPORTED, request_id=REPORTED.request_id, digest=b"contents")
    assert (again.repeated, again.version) == (True, 1)
    assert store.history.append(RUN, CHANGED, request_id=records.request_id(), digest=b"contents").version == 6


def _decoded(word: str) -> bytes:
    """Returns a word of the file: text as it stands, bytes as hexadecimal digits after 0x."""
    return bytes.fromhex(word[2:]) if word.startswith("0x") else word.encode()


def _encoded(value: bytes) -> str:
    text = value.isascii() and value.decode().isprintable() and b" " not in value and value
    return value.decode() if text else f"0x{value.hex()}"


def _fill(store: Store) -> None:
    """Stores the records above."""
    with store.datasets.upload(DATASET.name) as upload:
        upload.uid = DATASET.uid
        upload.put(COLUMNS)
        upload.commit(DATASET, STRATA)
    store.runs.create(RUN, START)
    for event in EVENTS:
        state = STATE if event in (RESTORED, UNDONE) else None
        store.history.append(RUN, event, request_id=event.request_id, digest=b"contents", state=state)
    snapshot = storage_pb2.Snapshot()
    snapshot.CopyFrom(ITEM_RESPONSE)
    snapshot.nonce = store.history.events(RUN, 1, 1).events[0].nonce
    store.history.put_snapshot(RUN, snapshot)
    store.checkpoints.put(RUN, CHECKPOINT, STATE)
    parts = [Part(2, [2, 0, 1])]
    store.leases.claim(
        RUN,
        parts,
        OFFER,
        request_id="request-1",
        digest=b"digest",
        holder=Holder(job="node-3"),
        incarnation="first",
        lease_seconds=60,
    )


def _lines(store: Store) -> list[str]:
    """Returns commands that store everything again; leases and answers last to the year 2100."""
    client = records.redis_of(store)
    lines = []
    for key in sorted(client.scan_iter()):
        kind = client.type(key)
        words: list[list[Any]]
        if kind == b"string":
            words = [[b"SET", key, client.get(key)]]
        elif kind == b"hash":
            words = [[b"HSET", key, *(word for pair in sorted(client.hgetall(key).items()) for word in pair)]]
        elif kind == b"set":
            words = [[b"SADD", key, *sorted(client.smembers(key))]]
        elif kind == b"list":
            words = [[b"RPUSH", key, *client.lrange(key, 0, -1)]]
        elif kind == b"zset":
            words = [[b"ZADD", key]]
            for member, score in client.zrange(key, 0, -1, withscores=True):
                late = key.endswith((b":leases", b":answer_times"))
                words[0] += [b"4102444800000" if late else f"{score:.0f}".encode(), member]
        else:
            entries = client.xrange(key)
            time = b"1700000000001"
            for entry, event in entries:
                event |= {b"t": time, b"c": checksum(entry, event[b"n"], time)}
            pairs = [(entry, event.items()) for entry, event in entries]
            words = [[b"XADD", key, entry, *(word for pair in event for word in pair)] for entry, event in pairs]
        lines += [" ".join(_encoded(word) for word in command) for command in words]
    return lines


def _main(name: str) -> None:
    with valkey() as server:
        store = Store(connect(server.url))
        store._database.time_ms = lambda dataset: 1_700_000_000_000  # type: ignore[method-assign]  # equal in each run
        _fill(store)
        head = "# Commands that fill a Redis with what was stored when this file was made; 0x: bytes in hexadecimal.\n"
        (GOLDEN / f"{name}.txt").write_text(head + "\n".join(_lines(store)) + "\n")
        store.close()


if __name__ == "__main__":
    _main(sys.argv[1])
