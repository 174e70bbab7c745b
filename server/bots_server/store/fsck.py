"""Looks at every key of the service, and names what is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
        dataset = _Dataset(database, name, list(of_name))
        yield from dataset.damages()
        if dataset.exists:
            existing.add(seal(name.encode(), DATASETS))
    key = database.keys.datasets
    index = set(database.command("SMEMBERS", key))
    if not all(intact(member, DATASETS) for member in index) or (index and existing - index):
        rebuild = partial(database.command, "UNLINK", key)  # the next listing makes it
        yield Damage("the list of datasets", f"{key} has wrong names or lacks some", "--repair", rebuild)


class _Dataset:
    """One name, and all keys that have it."""

    def __init__(self, database: Database, name: str, names: Sequence[str]) -> None:
        self._database, self._keys = database, database.keys
        self._name, self._names, self.exists = name, names, False
        self._datasets, self._runs = Datasets(database), Runs(database)
        self._history, self._checkpoints = History(database, 0), Checkpoints(database)

    def damages(self) -> Iterator[Damage]:
        where = f"dataset {self._name}"
        for key in self._names:
            stored = self._database.command("TYPE", key).decode()
            if stored not in ("none", kind(key)):
                yield Damage(where, f"{key} is a {stored}, not a {kind(key)}", "delete the key, and look again")
                return
        try:
            record = self._datasets.get(self._name)
        except DatasetNotFound:
            if lasting := [key for key in self._names if self._database.command("TTL", key) == -1]:
                yield self._remains(where, "its record is missing", lasting)
            return
        except (Damaged, ServerTooOld) as error:
            self.exists = True
            too_old = isinstance(error, ServerTooOld)
            yield Damage(where, str(error), "not looked at" if too_old else "restore a backup, or delete the dataset")
            return
        self.exists = True
        yield from self._named(where, lambda: self._datasets.strata(record))
        yield from self._named(where, lambda: sum(1 for _ in self._datasets.columns(record)))
        of_runs, known, unreadable = self._keys.runs(self._name, record.uid), {""}, False
        entries = self._database.command("HGETALL", of_runs)
        for field, value in sorted(entries.items()):
            name = field.decode(errors="replace")
            try:
                run = reader.run_of_any_version(of_runs, name, value)
            except RunDamaged as damage:
                unreadable = True
                yield Damage(f"run {name} of {where}", str(damage), "delete the run")
                continue
            known.add(run.uid)
            yield from self._of_run(f"run {name} of {where}", run)
        if unreadable:
            return
        if lost := [key for key in self._names if run_uid(key) not in known]:
            yield self._remains(where, "runs have keys and no record", lost)
            return
        for counted in self._named(where, lambda: self._runs.count(record)):
            repair = partial(self._database.command, "HSET", self._keys.dataset(self._name), "runs", len(entries))
            yield Damage(where, counted.what, "--repair", repair)

    def _of_run(self, where: str, run: storage_pb2.RunRecord) -> Iterator[Damage]:
        key = self._keys.of_run(run)
        yield from self._named(where, lambda: self._runs.current(run))
        yield from self._named(where, lambda: self._read_events(run))
        yield from self._snapshots(where, run)
        for uid, value in self._database.command("HGETALL", key.states).items():
            if not intact(value, uid):
                what = f"{key.states} has a wrong checksum at {uid.decode(errors='replace')}"
                yield Damage(where, what, f"delete the checkpoint that fails, or {RunDamaged.advice}")
        yield from self._named(where, lambda: self._checkpoints.list(run, "", _PAGE))
        requests = self._database.command("HGETALL", key.requests)
        arrivals = self._database.command("LRANGE", key.arrivals, 0, -1)
        whole = all(entry[20:] == checksum(request, entry[:20]) for request, entry in requests.items())
        if not whole or sorted(arrivals) != sorted(requests):
            advice = "nothing: the next report that meets it is refused with RUN_DAMAGED, and the ids begin anew"
            yield Damage(where, f"{key.requests} or {key.arrivals} has wrong or missing request ids", advice)
        answers = self._database.run("check_answers", [key.answers, key.answer_times], [])
        for answer, offer in zip(answers[::2], answers[1::2], strict=True):
            if not intact(offer, "offer"):
                what = f"{key.answers} has a wrong checksum or nothing at {answer.decode(errors='replace')}"
                yield Damage(where, what, "--repair forgets this answer", partial(self._forget, key, answer))
        flat = self._database.command("ZRANGE", key.leases, 0, -1, "WITHSCORES")
        leases = {task: float(end) for task, end in zip(flat[::2], flat[1::2], strict=True)}
        owners = {task: _until(entry) for task, entry in self._database.command("HGETALL", key.owners).items()}
        if leases != owners:
            repair = partial(self._database.command, "UNLINK", key.leases, key.owners, key.selections)
            advice = "--repair ends all leases of the run"
            yield Damage(where, f"{key.leases} and {key.owners} do not agree", advice, repair)

    def _snapshots(self, where: str, run: storage_pb2.RunRecord) -> Iterator[Damage]:
        """Yields the damaged snapshots. One that has an intact one before it may go: the events after that are kept."""
        key = self._keys.of_run(run)
        usable = bool(self._database.command("HGET", key.run, "trimmed") == b"0" and not run.HasField("forked_from"))
        for field, value in sorted(self._database.command("HGETALL", key.snapshots).items(), key=_version):
            if intact(value, field):
                usable = True
                continue
            drop = partial(self._database.command, "HDEL", key.snapshots, field)
            what = f"{key.snapshots} has a wrong checksum at {field.decode(errors='replace')}"
            yield Damage(where, what, "--repair drops it" if usable else RunDamaged.advice, drop if usable else None)

    def _read_events(self, run: storage_pb2.RunRecord) -> None:
        after, version = 0, 1
        while after < version:
            page = self._history.events(run, after, _PAGE)
            version, after = page.version, page.events[-1].version if page.events else page.version

    def _forget(self, key: RunKeys, answer: bytes) -> None:
        size = self._database.command("HSTRLEN", key.answers, answer)
        self._database.command("HINCRBY", key.answers, "bytes", -size)
        self._database.command("HDEL", key.answers, answer)
        self._database.command("ZREM", key.answer_times, answer)

    def _remains(self, where: str, what: str, names: Sequence[str]) -> Damage:
        def drop() -> None:
            for begin in range(0, len(names), _SCAN):
                self._database.command("UNLINK", *names[begin : begin + _SCAN])

        shown = f"{what}: {len(names)} keys such as {names[0]}"
        return Damage(where, shown, "restore a backup; --repair deletes them", drop)

    def _named(self, where: str, read: Callable[[], object]) -> Iterator[Damage]:
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
