"""What was stored yesterday loads today: a Redis filled with the bytes of an earlier day is read back.

`golden/v1.txt` is never written again: a field that is added to the protos gets a file of its own (`python -m
tests.store.test_golden v2` prints it), and this test reads them all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bots.v1 import task_selection_pb2
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Part, Store, connect
from tests.store import records
from tests.valkey import valkey

GOLDEN = Path(__file__).parent / "golden"

DATASET = storage_pb2.DatasetRecord(
    name="guru-math",
    uid="d" * 32,
    size=3,
    fingerprint=b"fingerprint",
    reference_grid=0.0625,
    tags=[task_selection_pb2.TagCount(tag="algebra", tasks=2), task_selection_pb2.TagCount(tag="geometrie é", tasks=1)],
    has_ids=True,
    strata=1,
    referenced_tasks=3,
    chunks=1,
    create_time_ms=1_700_000_000_000,
)
STRATA = storage_pb2.StrataTable(
    weak=b"\0\0\x80>", strong=b"\0\0@?", prior_alpha=b"\0\0\0\0\0\0\xf0?", prior_beta=b"\0\0\0\0\0\0\xf0?"
)
COLUMNS = storage_pb2.TaskColumns(
    size=3, stratum=bytes(12), tag=b"\0\0\0\0\0\0\0\0\1\0\0\0", ids=b"abcdef", id_lengths=b"\1\0\0\0\2\0\0\0\3\0\0\0"
)
HYPERPARAMETERS = task_selection_pb2.Hyperparameters(
    forgetting=0.1,
    implicit_weight=0.1,
    target=0.5,
    implicit_rollouts=0,
    capability_smoothing=0.9,
    rollouts_per_update=64,
    tolerance=1e-6,
    cooldown=2,
    uniform_fraction=0.25,
    temperature=0,
    greedy=False,
)
RUN = storage_pb2.RunRecord(
    name="qwen-7b",
    uid="a" * 32,
    dataset="guru-math",
    dataset_uid="d" * 32,
    hyperparameters=HYPERPARAMETERS,
    retention=task_selection_pb2.Retention(
        snapshot_interval=256, history=10_000, history_stride=1024, request_memory=100_000
    ),
    forked_from=task_selection_pb2.ForkPoint(run="qwen-1b", version=7, run_uid="b" * 32),
    create_time_ms=1_700_000_000_000,
)
REPORTED = storage_pb2.Event(
    time_ms=1_700_000_000_001,
    job="node-3",
    request_id="018bcfe5-6801-7000-8000-000000000001",
    report=storage_pb2.Report(
        tasks=[0, 2], successes=[1.5, 0], rollouts=[4, 8], policy_step=12, selection_policy_step=11
    ),
)
CHANGED = storage_pb2.Event(
    time_ms=1_700_000_000_002,
    request_id="018bcfe5-6802-7000-8000-000000000002",
    hyperparameters_changed=storage_pb2.HyperparametersChanged(
        hyperparameters=task_selection_pb2.Hyperparameters(target=0.6, greedy=True)
    ),
)
RESTORED = storage_pb2.Event(
    time_ms=1_700_000_000_003,
    request_id="018bcfe5-6803-7000-8000-000000000003",
    restored=storage_pb2.Restored(version=1, state_uid="c" * 32, checkpoint="best"),
)
STATE = storage_pb2.Snapshot(
    version=1,
    nonce=b"12345678",
    hyperparameters=HYPERPARAMETERS,
    updates=1,
    capability=0.25,
    baseline_alpha=b"\0\0\0\0\0\0\xf8?",
    baseline_beta=b"\0\0\0\0\0\0\0@",
    deviations=storage_pb2.Deviations(
        tasks=b"\2\0\0\0", alpha=b"\0\0\0\0\0\0\xe0?", beta=b"\0\0\0\0\0\0\xd0?", last_update=b"\1\0\0\0\0\0\0\0"
    ),
    pending=storage_pb2.Pending(tasks=b"\1\0\0\0", successes=b"\0\0\0\0\0\0\xf0?", rollouts=b"\0\0\0\0\0\0\0@"),
    total=b"\0\0\0\0\0\0\xf0?",
    recent=b"\0\0\0\0\0\0\xf0?",
    tried_tasks=b"\0\1\2\3",
    last_report_time_ms=1_700_000_000_001,
)
START = storage_pb2.Snapshot(version=0, updates=5)
OFFER = storage_pb2.Offer(
    selection_id="selection-1", version=3, tasks=[2, 0, 1], means=[0.5, 0.25, 0.75], draws=[0.5, 0.375, float("inf")]
)
CHECKPOINT = storage_pb2.Checkpoint(
    name="best", version=1, state_uid="e" * 32, create_time_ms=1_700_000_000_004, expire_time_ms=0
)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.txt")), ids=lambda file: file.stem)
def test_what_was_stored_loads(store: Store, file: Path) -> None:
    """Each record, event, snapshot, answer and id of an earlier day is read back as it was meant."""
    client: Any = records.redis_of(store)
    for line in file.read_text().splitlines()[1:]:
        client.execute_command(*(_decoded(word) for word in line.split(" ")))
    assert store.datasets.list() == [DATASET]
    assert store.datasets.strata(DATASET) == STRATA
    assert list(store.datasets.columns(DATASET)) == [COLUMNS]
    assert store.runs.list(DATASET) == [RUN]
    seen = store.history.sync(RUN, 0, b"")
    assert [event.event for event in seen.events] == [REPORTED, CHANGED, RESTORED]
    assert (seen.version, seen.snapshot_version, seen.diverged) == (3, 2, False)
    assert store.history.snapshot(RUN, 1) == START
    snapshot = store.history.snapshot(RUN)
    assert snapshot == storage_pb2.Snapshot(version=2, nonce=seen.events[1].nonce, updates=6)
    assert store.checkpoints.state(RUN, "c" * 32) == STATE
    assert store.checkpoints.get(RUN, "best") == (CHECKPOINT, STATE)
    assert store.leases.release(RUN, "selection-1") == 2
    claimed = store.leases.claim(RUN, [Part(1, [1])], storage_pb2.Offer(), request_id="request-1", digest=b"digest")
    assert (claimed.repeated, claimed.taken, claimed.offer) == (True, [0, 1], OFFER)
    again = store.history.append(RUN, REPORTED, request_id=REPORTED.request_id, digest=b"contents")
    assert (again.repeated, again.version) == (True, 1)
    assert store.history.append(RUN, CHANGED, request_id=records.request_id(), digest=b"contents").version == 4


def _decoded(word: str) -> bytes:
    """Returns a word of the file: text as it stands, bytes as hexadecimal digits after 0x."""
    return bytes.fromhex(word[2:]) if word.startswith("0x") else word.encode()


def _encoded(value: bytes) -> str:
    text = value.isascii() and value.decode().isprintable() and b" " not in value
    return value.decode() if text else f"0x{value.hex()}"


def _fill(store: Store) -> None:
    """Stores the records above."""
    with store.datasets.upload(DATASET.name) as upload:
        upload.uid = DATASET.uid
        upload.put(COLUMNS)
        upload.commit(DATASET, STRATA)
    store.runs.create(RUN, START)
    for event in (REPORTED, CHANGED, RESTORED):
        state = STATE if event is RESTORED else None
        store.history.append(RUN, event, request_id=event.request_id, digest=b"contents", state=state)
    nonce = store.history.events(RUN, 1, 1).events[0].nonce
    store.history.put_snapshot(RUN, storage_pb2.Snapshot(version=2, nonce=nonce, updates=6))
    store.checkpoints.put(RUN, CHECKPOINT, STATE)
    parts = [Part(2, [2, 0, 1])]
    store.leases.claim(RUN, parts, OFFER, request_id="request-1", digest=b"digest", lease_seconds=60)


def _lines(store: Store) -> list[str]:
    """Returns commands that bring about what is stored; leases and answers last to the year 2100."""
    client: Any = records.redis_of(store)
    lines = []
    for key in sorted(client.scan_iter()):
        kind = client.type(key)
        if kind == b"string":
            words = [[b"SET", key, client.get(key)]]
        elif kind == b"hash":
            words = [[b"HSET", key, *(word for pair in sorted(client.hgetall(key).items()) for word in pair)]]
        elif kind == b"set":
            words = [[b"SADD", key, *sorted(client.smembers(key))]]
        elif kind == b"zset":
            words = [[b"ZADD", key]]
            for member, score in client.zrange(key, 0, -1, withscores=True):
                words[0] += [b"4102444800000" if key.endswith(b":leases") else b"%d" % score, member]
        else:
            entries = client.xrange(key)
            words = [[b"XADD", key, entry, b"n", event[b"n"], b"e", event[b"e"]] for entry, event in entries]
        lines += [" ".join(_encoded(word) for word in command) for command in words]
    return lines


if __name__ == "__main__":
    with valkey() as server:
        store = Store(connect(server.url))
        _fill(store)
        (GOLDEN / f"{sys.argv[1]}.txt").write_text(
            "# Commands that fill a Redis with what was stored on the day of this file; 0x: bytes in hexadecimal.\n"
            + "\n".join(_lines(store))
            + "\n"
        )
        store.close()
