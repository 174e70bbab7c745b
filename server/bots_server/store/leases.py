"""Leases: no two live selections of a run share a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bots_server.errors import RequestIdReused
from bots_server.storage.v1 import storage_pb2
from bots_server.store import keys
from bots_server.store.database import Database
from bots_server.store.history import gone
from bots_server.store.pages import page
from bots_server.store.seal import seal, unseal

_ANSWER_MS = 3_600_000  # how long the answer to a request id is kept
_CALL_MS = 60_000  # the same for a call without one, which only this process repeats: after a broken connection


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a batch: it takes its first `need` tasks that are free and not taken by an earlier part."""

    need: int
    tasks: Sequence[int]  # candidates, nearest first


@dataclass(frozen=True, slots=True)
class Claim:
    taken: list[int]  # positions in `offer`'s columns, ascending in a part, parts in order; empty if a part is short
    offer: storage_pb2.Offer  # that `taken` refers to; of a repeat: the first one
    repeated: bool
    short: list[int]  # shortfall of each part; all 0: claimed
    leased: int  # tasks of the run under a live lease before this claim
    expired: int  # leases of the run that were over and that this claim purged
    ended: int  # live leases of the job's earlier incarnations that this claim ended
    expire_time_ms: int | None  # None: no lease


@dataclass(frozen=True, slots=True)
class Holder:
    """A job of an identity. Equal jobs of two identities have nothing in common."""

    identity: str = ""  # "": not known
    job: str = ""  # "": not given

    def __str__(self) -> str:
        """Returns it as it is stored: neither part has control characters."""
        return f"{self.identity}\n{self.job}" if self.identity else self.job

    @classmethod
    def parse(cls, stored: str) -> Holder:
        """Returns what was stored."""
        identity, _, job = stored.rpartition("\n")
        return cls(identity, job)


NOBODY = Holder()


@dataclass(frozen=True, slots=True)
class Lease:
    selection_id: str
    holder: Holder  # that asked for the selection
    tasks: int  # number of tasks under the lease
    remaining_ms: int


class Leases:
    def __init__(self, database: Database, history_bytes: int) -> None:
        self._database, self._most_bytes = database, history_bytes

    def claim(
        self,
        run: storage_pb2.RunRecord,
        parts: Sequence[Part],
        offer: storage_pb2.Offer,
        *,
        request_id: str = "",
        digest: bytes = b"",
        holder: Holder = NOBODY,
        incarnation: str = "",
        lease_seconds: float | None = None,
        allow_fewer: bool = False,
    ) -> Claim:
        """Takes tasks that no live selection has, all or nothing, in one transition.

        `offer`'s columns are the candidates of the parts, one part after the other; `offer.selection_id` owns the
        lease. If a part is short, nothing is taken and nothing is kept (offer more candidates and claim again), unless
        `allow_fewer`, for when there are no more candidates. With `lease_seconds` None nothing is leased, but the
        leases of others are respected. With a `request_id` a repeat gets the first answer, which is kept for an hour,
        as long as all answers of the run take no more than `history_bytes`. With a `holder` that has a job, and an
        `incarnation`, the leases of its earlier incarnations end first.

        Raises RunReplaced, RequestIdReused, and with a lease NotDurable: the tasks are taken, and a repeat gets them.
        """
        key = self._database.keys.of_run(run)
        names = [key.run, key.leases, key.owners, key.selections, key.jobs, key.answers, key.answer_times]
        answer_id = request_id or (offer.selection_id if lease_seconds is not None else "")
        shape = [number for part in parts for number in (part.need, len(part.tasks))]
        # A lease that a failover forgets would be granted again, so it must be as durable as a report.
        run_script = self._database.run if lease_seconds is None else self._database.run_durably
        answer = run_script(
            "claim",
            names,
            [
                offer.selection_id,
                0 if lease_seconds is None else max(1, round(lease_seconds * 1000)),
                digest,
                seal(offer.SerializeToString(), "offer") if answer_id else b"",
                int(allow_fewer),
                _ANSWER_MS if request_id else _CALL_MS,
                str(holder),
                keys.incarnation(incarnation if holder.job else ""),
                answer_id,
                self._most_bytes,
                len(parts),
                *shape,
                *(task for part in parts for task in part.tasks),
            ],
        )
        status = answer[0]
        if status == b"gone":
            raise gone(self._database, run)
        if status == b"reused":
            raise RequestIdReused(request_id)
        _, taken, short, leased, expires, kept, expired, ended = answer
        return Claim(
            taken=[int(position) for position in taken.split()],
            offer=storage_pb2.Offer.FromString(unseal(kept, "offer", names[5])) if status == b"repeated" else offer,
            repeated=status == b"repeated",
            short=short or [0] * len(parts),
            leased=leased,
            expired=expired,
            ended=ended,
            expire_time_ms=expires if lease_seconds is not None else None,
        )

    def release(self, run: storage_pb2.RunRecord, selection_id: str, tasks: Sequence[int] | None = None) -> int:
        """Ends the leases that one selection has on `tasks`; None: on all its tasks.

        Returns how many were live; 0 if the selection is not known. Raises RunReplaced.
        """
        if tasks is not None and not tasks:
            return 0
        key = self._database.keys.of_run(run)
        released: int = self._database.run(
            "release",
            [key.run, key.leases, key.owners, key.selections],
            [selection_id, " ".join(map(str, tasks or ()))],
        )
        if released < 0:
            raise gone(self._database, run)
        return released

    def end(self, run: storage_pb2.RunRecord, holder: Holder | None) -> int:
        """Ends the leases of a holder; None: all leases of the run. Returns how many were live. Raises RunReplaced."""
        key = self._database.keys.of_run(run)
        ended: int = self._database.run(
            "end_leases", [key.run, key.leases, key.owners, key.selections], [str(holder or ""), int(holder is None)]
        )
        if ended < 0:
            raise gone(self._database, run)
        return ended

    def list(self, run: storage_pb2.RunRecord, after: str = "", limit: int = 100) -> list[Lease]:
        """Returns the first `limit` live leases whose selection ids are above `after`, in their order.

        The list is shorter than `limit` only if there are no more. Raises RunReplaced.
        """
        key = self._database.keys.of_run(run)

        def read(selections: list[bytes]) -> list[Lease]:
            status, *answer = self._database.run("leases", [key.run, key.leases, key.selections], selections)
            if status == b"gone":
                raise gone(self._database, run)
            (flat,) = answer
            found = zip(selections, flat[::3], flat[1::3], flat[2::3], strict=True)
            return [
                Lease(selection.decode(), Holder.parse(holder.decode()), tasks, left)
                for selection, holder, tasks, left in found
                if tasks
            ]

        read([])  # raises RunReplaced also if there are no leases
        return page(self._database.command("HKEYS", key.selections), after, limit, read)
