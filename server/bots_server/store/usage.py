"""What each identity uses, and the quotas of an identity.

A dataset and its bytes, and a run with its checkpoints and bytes, count for the identity that created it. Use is read
from the records and from counters that each transition of a run updates in the run's own slot, so that it cannot drift
from what is stored. A quota is checked before a call changes anything, and no lock is held from there to the change:
calls that run at once may exceed it together, by what each of them adds.

Bytes are those of the stored values: columns and strata of datasets; snapshots, checkpoints, events with the states
that they name, and answers of selections. Redis needs some 10 % more, and 130 bytes for each remembered request id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bots_server.errors import QuotaExceeded
from bots_server.storage.v1 import storage_pb2
from bots_server.store.database import Database
from bots_server.store.datasets import Datasets
from bots_server.store.runs import Runs

_COUNTERS = ("written", "written_before_base", "snapshot_bytes", "checkpoint_bytes")


@dataclass(slots=True, kw_only=True)
class Usage:
    """What one identity uses; or the most that it may use."""

    datasets: int = 0
    tasks: int = 0
    runs: int = 0
    checkpoints: int = 0
    bytes: int = 0


# Of one identity. `bytes` is half of the maxmemory of deploy/redis/redis.conf.
DEFAULT_QUOTAS = Usage(datasets=1_000, tasks=200_000_000, runs=10_000, checkpoints=10_000, bytes=512 << 20)


class Quotas:
    """Checks of quotas; `limits` are those of each identity. `setting` of a field is quota_FIELD."""

    def __init__(self, database: Database, datasets: Datasets, runs: Runs, limits: Usage) -> None:
        self.limits = limits
        self._database, self._datasets, self._runs = database, datasets, runs

    def use(self, of: str | None = None) -> dict[str, Usage]:
        """Returns what each identity uses that owns anything; of one identity alone if it is given."""
        datasets = self._datasets.every()
        runs = [run for run in self._runs.every(datasets) if of in (None, run.owner)]
        datasets = [dataset for dataset in datasets if of in (None, dataset.owner)]
        use = {owner: Usage() for owner in {*(one.owner for one in datasets), *(one.owner for one in runs)}}
        for dataset in datasets:
            own = use[dataset.owner]
            own.datasets += 1
            own.tasks += dataset.size
            own.bytes += dataset.bytes
        for run, (checkpoints, size) in zip(runs, self._sizes(runs), strict=True):
            own = use[run.owner]
            own.runs += 1
            own.checkpoints += checkpoints
            own.bytes += size
        return use

    def require(self, owner: str, **more: int) -> Usage:
        """Returns what an identity uses. Raises QuotaExceeded if that and `more` of some fields exceed its quotas."""
        use = self.use(owner).get(owner, Usage())
        for field, by in more.items():
            require(field, getattr(self.limits, field), getattr(use, field), by)
        return use

    def _sizes(self, runs: Sequence[storage_pb2.RunRecord]) -> list[tuple[int, int]]:
        """Returns number of checkpoints and bytes of each run; of one that was deleted meanwhile nothing."""
        each = [self._database.keys.of_run(run) for run in runs]
        counters = self._database.commands([("HMGET", key.run, *_COUNTERS) for key in each])
        checkpoints = self._database.commands([("HLEN", key.checkpoints) for key in each])
        answers = self._database.commands([("HGET", key.answers, "bytes") for key in each])
        sizes = []
        for values, kept, answered in zip(counters, checkpoints, answers, strict=True):
            written, before_base, snapshots, states, answer = map(_number, (*values, answered))
            sizes.append((kept, written - before_base + snapshots + states + answer))
        return sizes


def _number(value: bytes | None) -> int:
    """Returns a counter; 0 if it is not there or no number, because others must not suffer from one damaged run."""
    return int(value) if value is not None and value.isdigit() else 0


def require(field: str, limit: int, use: int, by: int) -> None:
    """Raises QuotaExceeded if `use` and `by` more of a field exceed the quota."""
    if use + by > limit:
        raise QuotaExceeded(f"quota_{field}", limit, use, by, field)
