"""Leases of selections: their list, and their end before they expire."""

from __future__ import annotations

from bots.batch import BatchData
from bots.calls import PAGE, Steps
from bots.columns import Tasks
from bots.errors import TemporaryError
from bots.handle import RunHandle, rows_or_ids
from bots.history import Lease
from bots.records import record
from bots.v1 import task_selection_pb2 as pb


def release(run: RunHandle, selection_id: str, tasks: Tasks | None = None, *, rows: bool = False) -> Steps[int]:
    """Ends the leases of a selection on tasks that will not be reported (None: all of them); returns their number.

    If the service is away, the leases end when they expire, and this returns 0.
    """
    indices: list[int] = []
    ids: list[str] = []
    if tasks is not None:
        indices, ids = yield from rows_or_ids(run, "tasks", tasks, rows, ordered=False)
        if not indices and not ids:
            return 0
    request = pb.ReleaseSelectionRequest(run=run.ref(), selection_id=selection_id, tasks=indices, ids=ids)
    if not run.session.strict and not run.session.availability.reachable:
        return 0
    try:
        answer = yield from run.session.ask("ReleaseSelection", request)
    except TemporaryError:
        if run.session.strict:
            raise
        return 0
    released: int = answer.released
    return released


def release_batch(batch: BatchData) -> Steps[int]:
    """Ends the leases on these tasks, which will not be reported; returns the number of leases that ended."""
    if batch.fallback or not len(batch):
        return 0
    tasks = None if batch.whole else batch.tasks
    return (yield from release(batch.run, batch.selection_id, tasks, rows=True))


def leases(run: RunHandle, page_token: str) -> Steps[tuple[list[Lease], str]]:
    """Iterates over the live leases of the run, by selection id."""
    request = pb.ListLeasesRequest(run=run.ref(), page_size=PAGE, page_token=page_token)
    page = yield from run.session.ask("ListLeases", request)
    return [record(Lease, one) for one in page.leases], page.next_page_token


def end_leases(run: RunHandle, *, job: str | None = None) -> Steps[int]:
    """Ends the leases of a job (None: of all jobs); returns the number of tasks whose lease ended.

    `release` ends those of one selection.
    """
    answer = yield from run.session.ask("EndLeases", pb.EndLeasesRequest(run=run.ref(), job=job))
    ended: int = answer.ended
    return ended
