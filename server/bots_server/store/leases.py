"""Leases: no two live selections of a run share a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bots_server.errors import RequestIdReused, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import keys
from bots_server.store.database import Database

_ANSWER_MS = 600_000  # how long the answer to a request id is kept
_CALL_MS = 60_000  # and that to a call without one, which only redis-py repeats: at once, after a broken connection


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a batch: it takes its first `need` tasks that are free and not taken by an earlier part."""

    need: int
    tasks: Sequence[int]  # candidates, nearest first


@dataclass(frozen=True, slots=True)
class Claim:
    taken: list[
        int
    ]  # positions in `offer`'s columns, ascending within a part, parts in order; empty where some part is short
    offer: storage_pb2.Offer  # that `taken` points into: the first answer's, where this is a repeat
    repeated: bool
    short: list[int]  # [parts] how many each part lacked; all 0: claimed
    leased: int  # tasks of the run under a live lease, those of this claim not counted
    expired: int  # leases of the run that were over and that this claim purged
    expire_time_ms: int | None  # None: no lease


class Leases:
    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self,
        run: storage_pb2.RunRecord,
        parts: Sequence[Part],
        offer: storage_pb2.Offer,
        *,
        request_id: str = "",
        digest: bytes = b"",
        lease_seconds: float | None = None,
        allow_fewer: bool = False,
    ) -> Claim:
        """Takes tasks that no live selection has, all or nothing, in one transition.

        `offer`'s columns are the parts' candidates one after the other; `offer.selection_id` owns the lease. Where a
        part comes out short nothing is taken and nothing kept (draw on outward and claim again), unless `allow_fewer`,
        which the caller says when its candidates are exhausted. With `lease_seconds` None nothing is leased, but the
        leases of others are respected. With a `request_id` the answer is kept ten minutes, and a repeat gets it. Raises
        RunReplaced, RequestIdReused, and with a lease NotDurable: it is taken, and a repeat of the id gets it.
        """
        key = keys.of_run(run)
        names = [key.run, key.leases, key.owners, key.selections]
        if request_id:
            names.append(key.answer(request_id))
        elif lease_seconds is not None:
            names.append(key.answer(offer.selection_id))
        shape = [number for part in parts for number in (part.need, len(part.tasks))]
        # A lease that a failover forgets would be granted again: it counts once it is as durable as a report.
        ask = self._database.run if lease_seconds is None else self._database.store
        answer = ask(
            "claim",
            names,
            [
                offer.selection_id,
                0 if lease_seconds is None else max(1, round(lease_seconds * 1000)),
                digest,
                offer.SerializeToString() if len(names) > 4 else b"",
                int(allow_fewer),
                _ANSWER_MS if request_id else _CALL_MS,
                len(parts),
                *shape,
                *(task for part in parts for task in part.tasks),
            ],
        )
        status = answer[0]
        if status == b"gone":
            raise RunReplaced(run.name, run.uid)
        if status == b"reused":
            raise RequestIdReused(request_id)
        if status == b"repeated" and lease_seconds is not None:
            self._database.settle(run.dataset)
        _, taken, short, leased, expires, kept, expired = answer
        return Claim(
            taken=[int(position) for position in taken.split()],
            offer=storage_pb2.Offer.FromString(kept) if status == b"repeated" else offer,
            repeated=status == b"repeated",
            short=short or [0] * len(parts),
            leased=leased,
            expired=expired,
            expire_time_ms=expires if lease_seconds is not None else None,
        )

    def release(self, run: storage_pb2.RunRecord, selection_id: str) -> int:
        """Ends the leases of one selection. Returns how many were live; 0 where it is not known (any more).

        Raises RunReplaced.
        """
        key = keys.of_run(run)
        released: int = self._database.run("release", [key.run, key.leases, key.owners, key.selections], [selection_id])
        if released < 0:
            raise RunReplaced(run.name, run.uid)
        return released
