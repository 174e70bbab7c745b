"""Leases: no two live selections of a run share a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bots_server.storage.v1 import storage_pb2
from bots_server.store.scripts import Scripts


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
    expire_time_ms: int | None  # None: no lease


class Leases:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

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
        RunReplaced, RequestIdReused.
        """
        raise NotImplementedError

    def release(self, run: storage_pb2.RunRecord, selection_id: str) -> int:
        """Ends the leases of one selection. Returns how many were live; 0 where it is not known (any more)."""
        raise NotImplementedError
