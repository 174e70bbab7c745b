"""Looks at every key of the service, and names what is damaged."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from bots_server.errors import Damaged, DatasetNotFound, RunDamaged, ServerTooOld
from bots_server.storage.v1 import storage_pb2
from bots_server.store import reader
from bots_server.store.checkpoints import Checkpoints
from bots_server.store.database import Database
from bots_server.store.datasets import Datasets
from bots_server.store.history import History
from bots_server.store.keys import DATASETS, RunKeys, kind, run_uid
from bots_server.store.runs import Runs
from bots_server.store.seal import checksum, intact, seal

_SCAN = 1000  # keys that Redis looks at in one step of a scan
_PAGE = 1000  # events or checkpoints that are read at once


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is damaged.

    where:  the dataset, and the run if it is of one
    advice: what to do
    repair: does what is safe; None: nothing is
    """

    where: str
    what: str
    advice: str
    repair: Callable[[], object] | None = None


def damages(database: Database) -> Iterator[Damage]:
    """Yields all damage, dataset by dataset. Changes nothing."""
    names = sorted(key.decode(errors="replace") for key in database.scan(database.keys.every("*"), _SCAN))
    existing: set[bytes] = set()
    for name, of_name in groupby(names, lambda key: key.partition("{")[2].partition("}")[0]):
        if (yield from _of_dataset(database, name, list(of_name))):
            existing.add(seal(name.encode(), DATASETS))
    key = database.keys.datasets
    index = set(database.command("SMEMBERS", key))
    if not all(intact(member, DATASETS) for member in index) or (index and existing - index):
        rebuild = partial(database.command, "UNLINK", key)  # the next listing makes it
        yield Damage("the list of datasets", f"{key} has wrong names or lacks some", "--repair", rebuild)


def _of_dataset(database: Database, name: str, names: Sequence[str]) -> Generator[Damage, None, bool]:
    """Yields the damage of the keys of one name. Returns whether they are of a dataset."""
    where, datasets, runs = f"dataset {name}", Datasets(database), Runs(database)
    for key in names:
        stored = database.command("TYPE", key).decode()
        if stored not in ("none", kind(key)):
            yield Damage(where, f"{key} is a {stored}, not a {kind(key)}", "delete the key, and look again")
            return False
    try:
        record = datasets.get(name)
    except DatasetNotFound:
        if lasting := [key for key in names if database.command("TTL", key) == -1]:
            yield _remains(database, where, "its record is missing", lasting)
        return False
    except (Damaged, ServerTooOld) as error:
        too_old = isinstance(error, ServerTooOld)
        yield Damage(where, str(error), "not looked at" if too_old else "restore a backup, or delete the dataset")
        return True
    yield from _named(where, lambda: datasets.strata(record))
    yield from _named(where, lambda: sum(1 for _ in datasets.columns(record)))
    of_runs, known, unreadable = database.keys.runs(name, record.uid), {""}, False
    entries = database.command("HGETALL", of_runs)
    for field, value in sorted(entries.items()):
        where_run = f"run {field.decode(errors='replace')} of {where}"
        try:
            run = reader.run_of_any_version(of_runs, field.decode(errors="replace"), value)
        except RunDamaged as damage:
            unreadable = True
            yield Damage(where_run, str(damage), "delete the run")
            continue
        known.add(run.uid)
        yield from _of_run(database, where_run, run)
    lost = [key for key in names if run_uid(key) not in known]
    if lost and not unreadable:
        yield _remains(database, where, "runs have keys and no record", lost)
    elif not unreadable:
        for counted in _named(where, lambda: runs.count(record)):
            repair = partial(database.command, "HSET", database.keys.dataset(name), "runs", len(entries))
            yield Damage(where, counted.what, "--repair", repair)
    return True


def _of_run(database: Database, where: str, run: storage_pb2.RunRecord) -> Iterator[Damage]:
    key = database.keys.of_run(run)
    yield from _named(where, lambda: Runs(database).current(run))
    yield from _named(where, lambda: _read_events(database, run))
    yield from _snapshots(database, where, run)
    for uid, value in database.command("HGETALL", key.states).items():
        if not intact(value, uid):
            what = f"{key.states} has a wrong checksum at {uid.decode(errors='replace')}"
            yield Damage(where, what, f"delete the checkpoint that fails, or {RunDamaged.advice}")
    yield from _named(where, lambda: Checkpoints(database).list(run, "", _PAGE))
    requests, arrivals = database.command("HGETALL", key.requests), database.command("LRANGE", key.arrivals, 0, -1)
    whole = all(entry[20:] == checksum(request, entry[:20]) for request, entry in requests.items())
    if not whole or sorted(arrivals) != sorted(requests):
        advice = "nothing: the next report that meets it is refused with RUN_DAMAGED, and the ids begin anew"
        yield Damage(where, f"{key.requests} or {key.arrivals} has wrong or missing request ids", advice)
    answers = database.run("check_answers", [key.answers, key.answer_times], [])
    for answer, offer in zip(answers[::2], answers[1::2], strict=True):
        if not intact(offer, "offer"):
            what = f"{key.answers} has a wrong checksum or nothing at {answer.decode(errors='replace')}"
            yield Damage(where, what, "--repair forgets this answer", partial(_forget, database, key, answer))
    flat = database.command("ZRANGE", key.leases, 0, -1, "WITHSCORES")
    leases = {task: float(end) for task, end in zip(flat[::2], flat[1::2], strict=True)}
    owners = {task: _until(entry) for task, entry in database.command("HGETALL", key.owners).items()}
    if leases != owners:
        repair = partial(database.command, "UNLINK", key.leases, key.owners, key.selections)
        what = f"{key.leases} and {key.owners} do not agree"
        yield Damage(where, what, "--repair ends all leases of the run", repair)


def _snapshots(database: Database, where: str, run: storage_pb2.RunRecord) -> Iterator[Damage]:
    """Yields the damaged snapshots. One that has an intact one before it may go: the events after that are kept."""
    key = database.keys.of_run(run)
    usable = bool(database.command("HGET", key.run, "trimmed") == b"0" and not run.HasField("forked_from"))
    for field, value in sorted(database.command("HGETALL", key.snapshots).items(), key=_version):
        if intact(value, field):
            usable = True
            continue
        drop = partial(database.command, "HDEL", key.snapshots, field)
        what = f"{key.snapshots} has a wrong checksum at {field.decode(errors='replace')}"
        yield Damage(where, what, "--repair drops it" if usable else RunDamaged.advice, drop if usable else None)


def _read_events(database: Database, run: storage_pb2.RunRecord) -> None:
    history, after, version = History(database, 0), 0, 1
    while after < version:
        page = history.events(run, after, _PAGE)
        version, after = page.version, page.events[-1].version if page.events else page.version


def _forget(database: Database, key: RunKeys, answer: bytes) -> None:
    size = database.command("HSTRLEN", key.answers, answer)
    database.command("HINCRBY", key.answers, "bytes", -size)
    database.command("HDEL", key.answers, answer)
    database.command("ZREM", key.answer_times, answer)


def _remains(database: Database, where: str, what: str, names: Sequence[str]) -> Damage:
    def drop() -> None:
        for begin in range(0, len(names), _SCAN):
            database.command("UNLINK", *names[begin : begin + _SCAN])

    shown = f"{what}: {len(names)} keys such as {names[0]}"
    return Damage(where, shown, "restore a backup; --repair deletes them", drop)


def _named(where: str, read: Callable[[], object]) -> Iterator[Damage]:
    """Yields the damage that reading something names."""
    try:
        read()
    except Damaged as damage:
        yield Damage(where, f"{damage.key} {damage.what}", damage.advice)


def _until(entry: bytes) -> int:
    """Returns when the lease of an owner's entry ends; -1 if that cannot be read."""
    end = entry.partition(b" ")[0]
    return int(end) if end.isdigit() else -1


def _version(entry: tuple[bytes, bytes]) -> int:
    """Returns the version of a snapshot's field; the greatest if it is none."""
    return int(entry[0]) if entry[0].isdigit() else 1 << 62
