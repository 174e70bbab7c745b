"""Stored messages and the core: bit for bit, and nothing that this build does not understand."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from bots_server.core.evidence import gather
from bots_server.core.hyperparameters import MODELS, Hyperparameters
from bots_server.core.posterior import (
    Event,
    HyperparametersChanged,
    Posterior,
    Report,
    Restored,
    Retired,
    Unretired,
    fold,
    fold_all,
    start,
)
from bots_server.core.strata import Strata, StrataBuilder
from bots_server.core.task_ids import pack
from bots_server.core.tasks import Tasks, arrange
from bots_server.errors import ServerTooOld
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store, StoredEvent, codec, reader
from bots_server.store.codec.arrays import PIECE
from bots_server.store.seal import seal
from tests.store import records

SIZE = 200
UNKNOWN_FIELD = b"\xa0\x06\x01"  # number 100, a varint


def tasks(features: bool = False) -> Tasks:
    """Returns tasks with two references, three tags and optionally two features."""
    rng = np.random.default_rng(1)
    builder = StrataBuilder(2, reference_grid=0.25)
    rates = rng.random((SIZE, 2)).astype(np.float32)
    rates[::7, 0] = np.nan
    stratum = builder.add(rates, None, None, SIZE)
    return arrange(
        builder.strata(),
        stratum,
        rng.integers(0, 3, SIZE).astype(np.uint32),
        ("algebra", "geometry", "logic"),
        reference_names=("weak", "strong"),
        features=rng.normal(size=(SIZE, 2)).astype(np.float32) if features else None,
        feature_names=("length", "depth") if features else (),
    )


def events(seed: int, of: Tasks, model: str) -> list[Event]:
    """Returns events of every kind, with parts of selections, and the outcomes of a graded reward."""
    rng = np.random.default_rng(seed)
    made: list[Event] = []
    posterior = start(of, Hyperparameters(), model)
    for number in range(40):
        chosen = rng.choice(SIZE, 6, replace=False)
        rollouts = rng.integers(1, 9, 6).astype(np.float64)
        effective = rng.random(6) < 0.5 if number % 3 == 0 else None
        evidence = gather(chosen, np.round(rollouts * rng.random(6), 1), rollouts, effective)
        selection = f"{int(rng.integers(0, 20)):032x}" if number % 4 else ""
        event: Event = Report(
            evidence,
            1000 + number,
            selection,
            number,
            number - 1 if number % 5 else None,
            shadow_tasks=evidence.tasks[1:],
        )
        if number == 12:
            event = Retired(np.array([3, 5, 8]), "broken verifier")
        elif number == 16:
            event = Unretired(np.array([5]))
        elif number == 20:
            event = HyperparametersChanged({"target": 0.25, "rollouts_per_update": 64})
        elif number == 23:
            event = HyperparametersChanged({"rollouts_per_update": 0})
        elif number == 30:
            event = Restored(posterior)
        made.append(event)
        if number == 18:
            posterior = fold_all(start(of, Hyperparameters(), model), of, made)
    return made


def same(one: Any, other: Any) -> bool:
    """Returns whether two values are equal, arrays bit for bit."""
    if isinstance(one, np.ndarray):
        return bool((one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()))
    if is_dataclass(one):
        names = [field.name for field in fields(one) if field.init]
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def through_bytes(posterior: Posterior, of: Tasks, nonce: bytes = b"") -> Posterior:
    packed = codec.snapshot_message(posterior, nonce).SerializeToString()
    return codec.posterior(storage.Snapshot.FromString(packed), of)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("features", [False, True])
def test_a_snapshot_is_read_back_bit_for_bit(model: str, features: bool) -> None:
    """A posterior is equal after it was stored, and so is the fold of more events onto it."""
    of = tasks(features)
    posterior = start(of, Hyperparameters(), model)
    assert same(posterior, through_bytes(posterior, of))
    made = events(1, of, model)
    for at, event in enumerate(made):
        posterior = fold(posterior, of, event)
        if at in (14, 22, 33):
            read = through_bytes(posterior, of)
            assert same(posterior, read)
            assert same(fold_all(posterior, of, made[at + 1 : at + 5]), fold_all(read, of, made[at + 1 : at + 5]))
    assert posterior.open
    assert posterior.state.updates > 15


def test_a_snapshot_states_the_hyperparameters_of_its_model_alone() -> None:
    """A snapshot has all hyperparameters of its model and none of the other."""
    of = tasks()
    common = {"target", "rest", "uniform_fraction", "temperature", "greedy", "rollouts_per_update"}
    for model, own in zip(
        MODELS, ({"forgetting", "implicit_weight", "implicit_rollouts"}, {"residual_memory", "drift"}), strict=True
    ):
        message = codec.snapshot_message(start(of, Hyperparameters(), model))
        assert codec.stated(message.hyperparameters).keys() == common | own


def test_events_are_read_back() -> None:
    """Every kind of event is equal after it was stored."""
    of = tasks()
    for at, event in enumerate(events(2, of, "interpolation")):
        message = codec.stored_event(event, job="j", request_id="r", state_uid="a" * 32, checkpoint="best")
        assert (message.job, message.request_id, message.min_reader) == ("j", "r", 1)
        read = storage.Event.FromString(message.SerializeToString())
        time_ms = event.time_ms if isinstance(event, Report) else 5
        states = {"a" * 32: event.state} if isinstance(event, Restored) else {}
        back = codec.core_event(StoredEvent(at + 1, b"", time_ms, read), states.__getitem__)
        assert same(event, back)


@pytest.mark.parametrize("size", [PIECE, 2 * PIECE + 1])
def test_long_event_is_read_back(size: int) -> None:
    """Its columns are stored in pieces."""
    rng = np.random.default_rng(size)
    rollouts = rng.integers(1, 9, size).astype(np.float64)
    evidence = gather(np.arange(size) * 3, rollouts * rng.random(size), rollouts, rng.random(size) < 0.5)
    for event in (Report(evidence, 5), Retired(evidence.tasks, "broken"), Unretired(evidence.tasks)):
        stored = StoredEvent(1, b"", 5, codec.stored_event(event))
        assert same(event, codec.core_event(stored, lambda uid: pytest.fail(uid)))


def test_datasets_are_read_back() -> None:
    """Strata and columns of every kind are equal after they were stored."""
    of = tasks()
    table = storage.StrataTable.FromString(codec.strata_message(of.strata).SerializeToString())
    assert same(of.strata, codec.strata(table))
    nothing = Strata(np.empty((2, 0), np.float32), np.ones(2), np.ones(2))
    assert same(nothing, codec.strata(codec.strata_message(nothing)))
    columns = codec.Columns(
        stratum=np.array([3, 1, 2], np.uint32),
        tag=np.array([0, 1, 0], np.uint32),
        ids=pack([b"a", b"l\xc3\xa4", b"xyz"]),
        features=np.array([[1, np.nan], [0, 2], [3, 4]], np.float32),
    )
    message = codec.columns_message(columns)
    assert message.size == 3
    assert same(columns, codec.columns(storage.TaskColumns.FromString(message.SerializeToString())))
    plain = codec.columns(codec.columns_message(codec.Columns(columns.stratum)))
    assert (plain.tag, plain.ids, plain.features) == (None, None, None)


# --------------------------------------------------------------------------------------- two builds side by side


def newer(message: Any, min_reader: int) -> Any:
    """Returns a message as a newer build writes it: with a field that this one does not know."""
    written = type(message)()
    written.CopyFrom(message)
    written.min_reader = min_reader
    return type(message).FromString(written.SerializeToString() + UNKNOWN_FIELD)


def folded(store: Store, run: storage.RunRecord, of: Tasks) -> Posterior:
    """Returns the posterior that a server folds from what is stored."""
    snapshot = store.history.snapshot(run)
    if snapshot is None:
        posterior, nonce = start(of, Hyperparameters(), "interpolation"), b""
    else:
        posterior, nonce = codec.posterior(snapshot, of), snapshot.nonce

    def state(uid: str) -> Posterior:
        found = store.checkpoints.state(run, uid)
        assert found is not None
        return codec.posterior(found, of)

    seen = store.history.sync(run, posterior.version, nonce)
    return fold_all(posterior, of, [codec.core_event(event, state) for event in seen.events])


def reported(task: int) -> storage.Event:
    return codec.stored_event(Report(gather(np.array([task]), np.array([1.0]), np.array([2.0])), 0))


def test_a_server_never_folds_an_event_that_it_does_not_understand(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that needs a newer reader makes the run unavailable on the older server and on no newer one; other runs
    are served by both.
    """
    of, run, other = tasks(), records.run(store), records.run(store, "other")
    for to in (run, other):
        records.append(store, to, reported(7))
    records.append(store, run, newer(reported(8), min_reader=2))
    with pytest.raises(ServerTooOld, match="event 2 needs reader version 2, and this server has 1"):
        folded(store, run, of)
    assert folded(store, other, of).version == 1
    monkeypatch.setattr(reader, "READER", 2)
    assert folded(store, run, of).version == 2


def test_a_server_folds_an_event_with_a_field_that_changes_nothing(store: Store) -> None:
    """A field of a newer build that does not raise `min_reader` makes no difference to the fold."""
    of, run, other = tasks(), records.run(store), records.run(store, "other")
    records.append(store, run, reported(7))
    records.append(store, other, newer(reported(7), min_reader=1))
    one, two = folded(store, run, of), folded(store, other, of)
    assert same(one.state, two.state)


def test_an_event_of_an_unknown_kind_is_not_folded(store: Store) -> None:
    """An event of a kind that this build does not know makes the run unavailable, not an internal error."""
    of, run = tasks(), records.run(store)
    records.append(store, run, storage.Event.FromString(UNKNOWN_FIELD))
    with pytest.raises(ServerTooOld, match="event 1 needs reader version 2"):
        folded(store, run, of)
    assert store.history.events(run, 0, 10).events[0].version == 1  # it is listed all the same


def test_a_snapshot_of_a_newer_server_is_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot, a restored state and a fork that need a newer reader make the run unavailable."""
    of, run = tasks(), records.run(store)
    records.append(store, run, reported(7))
    nonce = store.history.events(run, 0, 1).events[0].nonce
    snapshot = newer(codec.snapshot_message(folded(store, run, of), nonce), min_reader=2)
    checkpoint = storage.Checkpoint(name="best", version=1, state_uid="c" * 32)
    store.checkpoints.put(run, checkpoint, snapshot)
    fork, _ = store.runs.create(records.run_record(store.datasets.get("guru-math"), "fork"), snapshot)
    assert store.history.put_snapshot(run, snapshot)
    for call in (
        lambda: folded(store, run, of),
        lambda: folded(store, fork, of),
        lambda: store.checkpoints.get(run, "best"),
        lambda: store.checkpoints.state(run, "c" * 32),
        lambda: codec.posterior(snapshot, of),
    ):
        with pytest.raises(ServerTooOld, match="needs reader version 2, and this server has 1"):
            call()
    monkeypatch.setattr(reader, "READER", 2)
    assert folded(store, run, of).version == 1
    assert folded(store, fork, of).version == 0


def test_records_of_a_newer_server_are_not_used_but_listed(store: Store) -> None:
    """A run or dataset that needs a newer reader is unavailable, listed all the same, and not taken for damaged."""
    run = records.run(store)
    of = store.datasets.get("guru-math")
    redis = records.redis_of(store)
    redis.hset(
        records.KEYS.runs(of.name, of.uid), run.name, seal(newer(run, min_reader=2).SerializeToString(), run.name)
    )
    with pytest.raises(ServerTooOld, match="run 'qwen-7b' needs reader version 2"):
        store.runs.get(of, run.name)
    with pytest.raises(ServerTooOld):
        store.runs.create(records.run_record(of))
    assert [one.record.uid for one in store.runs.list(of)] == [run.uid]
    redis.hset(records.KEYS.dataset(of.name), "record", seal(newer(of, min_reader=2).SerializeToString(), "record"))
    with pytest.raises(ServerTooOld, match="dataset 'guru-math' needs reader version 2"):
        store.datasets.get(of.name)
    assert [one.uid for one in store.datasets.list()] == [of.uid]
    (found,) = store.damages()
    assert ("needs reader version 2" in found.what, found.repair) == (True, None)
