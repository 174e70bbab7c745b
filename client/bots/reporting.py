"""Reports of outcomes: delivered now, or kept in the outbox until they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from bots import columns, delivery
from bots.batch import BatchData
from bots.calls import Steps
from bots.columns import Column, Tasks
from bots.errors import BotsError, TemporaryError, invalid
from bots.fallback import check_ids, check_rows
from bots.handle import RunHandle
from bots.outbox import Entry, Kind
from bots.request_ids import new_request_id
from bots.v1 import task_selection_pb2 as pb

logger = logging.getLogger("bots")

MOST_OUTCOMES = 100_000


def report(
    run: RunHandle,
    tasks: Tasks,
    successes: Column,
    rollouts: Column,
    *,
    rows: bool = False,
    effective: Column | None = None,
    selection_id: str = "",
    policy_step: int | None = None,
    selection_policy_step: int | None = None,
    shadow: BatchData | None = None,
    request_id: str | None = None,
) -> Steps[int | None]:
    """Reports outcomes; returns the version that they made, or None if they wait for the service (guarantee 1).

    tasks          ids if the dataset has ids, else row numbers; 1 to 100000. A task may appear several times.
    successes      one number, or one for each task: between 0 and its rollouts; fractions are allowed.
    rollouts       one whole number, or one for each task: between 1 and 1000000.
    rows           `tasks` are row numbers although the dataset has ids.
    effective      one for each task: whether the rewards of its rollouts differ. None: derived from the counts.
    selection_id   the selection that they answer: its leases on these tasks end, and its reports are one update.
    policy_step    the policy's training step now, and at the selection (`selection_policy_step`).
    shadow         the batch that the run would have selected in place of these tasks: `Summary` compares the two.
    request_id     to repeat a call: `request_id` of the error that it raised.
    """
    known = run.session.known(run.dataset)
    if known is None and run.session.strict and not rows:
        known = yield from run.session.tasks_of(run.dataset, run.name)
    resolved = rows or known is not None
    if resolved:
        indices, ids = columns.rows_or_ids("tasks", tasks, known is not None and known.has_ids and not rows)
    else:
        indices, ids = columns.numbers_or_texts("tasks", tasks)
    return (
        yield from send_report(
            run,
            indices,
            ids,
            *columns.outcomes(successes, rollouts, len(indices) + len(ids)),
            _effective(effective, len(indices) + len(ids)),
            resolved=resolved,
            selection_id=selection_id,
            policy_step=policy_step,
            selection_policy_step=selection_policy_step,
            shadow_tasks=[] if shadow is None or shadow.fallback else shadow.tasks.tolist(),
            request_id=request_id or new_request_id(),
        )
    )


def report_batch(
    batch: BatchData,
    successes: Column,
    rollouts: Column,
    *,
    part: object = "",
    effective: Column | None = None,
    policy_step: int | None = None,
) -> Steps[int | None]:
    """Reports the outcomes of these tasks and ends their leases; returns the version that they made, or None if they
    wait for the service.

    The report has one request id, made of the selection and the tasks, so that a repeat counts once: by hand after an
    error, by a retry library, by every rank that has the gathered outcomes. A repeat with other outcomes is refused
    (REQUEST_ID_REUSED). Reports of parts (`batch[rank::world]`) are together one update.

    successes, rollouts, effective  as in `Run.report`.
    part           names this part of the rollouts, if the rollouts of the same tasks come in several reports.
    policy_step    the policy's training step now.
    """
    if not len(batch):
        return None
    return (
        yield from send_report(
            batch.run,
            batch.tasks.tolist(),
            [],
            *columns.outcomes(successes, rollouts, len(batch)),
            _effective(effective, len(batch)),
            **batch_fields(batch, part, policy_step),
        )
    )


def batch_fields(batch: BatchData, part: object, policy_step: int | None) -> dict[str, Any]:
    """Returns the fields of a report on tasks of a batch that do not depend on their outcomes."""
    return {
        "selection_id": batch.selection_id,
        "policy_step": policy_step,
        "selection_policy_step": batch.policy_step if policy_step is not None else None,
        "request_id": batch.report_id(part),
    }


def send_report(
    run: RunHandle,
    rows: list[int],
    ids: list[str],
    successes: list[float],
    rollouts: list[int],
    effective: list[bool],
    *,
    resolved: bool = True,
    **fields: Any,
) -> Steps[int | None]:
    """Sends a report with the fields of `report_request`; returns the version that it made, or None if it waits for the
    service or has no tasks.

    resolved  it is known whether the dataset has ids, so `rows` are row numbers.
    """
    began = time.monotonic()
    if not rows and not ids:
        return None
    request = report_request(run, rows, ids, successes, rollouts, effective, **fields)
    try:
        if run.session.strict:
            answer = yield from run.session.ask("ReportOutcomes", request)
        else:
            answer = yield from _send_or_keep(run, request, "report" if resolved else "unresolved")
    finally:
        run.counters.add("report", time.monotonic() - began)
    if answer is None:
        return None
    run.saw(answer.run_uid, answer.version)
    version: int = answer.version
    return version


def _send_or_keep(run: RunHandle, request: pb.ReportOutcomesRequest, kind: Kind) -> Steps[Any]:
    """Returns the answer, or None if the report waits in the outbox. It is there before it is sent, so that whatever
    interrupts the call, it is kept.
    """
    session = run.session
    entry = keep_report(run, request, kind)
    if not session.availability.reachable:
        session.wake()
        return None
    if session.outbox.claim(run.lane, entry) is None:
        session.wake()  # older ones wait
        return None
    try:
        answer = yield from delivery.send(session, entry)
    except TemporaryError as error:
        session.outbox.released(entry, error)
        if session.availability.reachable:
            logger.warning("run %s/%s: reports wait: %s", *run.lane, error)
        else:
            session.availability.degraded(error, reports=1)
        session.wake()
        return None
    except BotsError:
        session.outbox.withdrawn(entry)
        raise
    except BaseException:
        session.outbox.released(entry)
        session.wake()
        raise
    session.outbox.delivered(entry)
    if session.outbox.waits(run.lane):
        session.wake()  # reports that came meanwhile
    session.availability.restored()
    return answer


def keep_report(run: RunHandle, request: pb.ReportOutcomesRequest, kind: Kind) -> Entry:
    """Puts a report into the outbox, and counts it if the service is away."""
    entry = run.session.outbox.add(run.lane, kind, request.SerializeToString())
    if not run.session.availability.reachable:
        run.session.availability.degraded(None, reports=1)
    return entry


def report_request(
    run: RunHandle,
    rows: list[int],
    ids: list[str],
    successes: list[float],
    rollouts: list[int],
    effective: list[bool],
    *,
    selection_id: str,
    request_id: str,
    policy_step: int | None = None,
    selection_policy_step: int | None = None,
    shadow_tasks: Sequence[int] = (),
) -> pb.ReportOutcomesRequest:
    """Returns the request of a report on `rows` or `ids`, one of which is empty; checked if the tasks are known."""
    _check(run, rows, ids, policy_step, selection_policy_step)
    return pb.ReportOutcomesRequest(
        run=run.ref(),
        job=run.session.job,
        request_id=request_id,
        selection_id=selection_id,
        policy_step=policy_step,
        selection_policy_step=selection_policy_step,
        tasks=rows,
        ids=ids,
        successes=successes,
        rollouts=rollouts,
        effective=effective,
        shadow_tasks=shadow_tasks,
    )


def _effective(effective: Column | None, tasks: int) -> list[bool]:
    if effective is None:
        return []
    return [bool(value) for value in columns.of_length("effective", effective, tasks, columns.whole)]


def _check(run: RunHandle, rows: list[int], ids: list[str], step: int | None, selection_step: int | None) -> None:
    if len(rows) + len(ids) > MOST_OUTCOMES:
        raise invalid("tasks", f"{len(rows) + len(ids)} entries", f"must be between 1 and {MOST_OUTCOMES} entries")
    known = run.session.known(run.dataset)
    if known is not None:
        check_rows("tasks", rows, known.size)
        check_ids("ids", ids, known)
    if step is not None and step < 0:
        raise invalid("policy_step", step, "must be at least 0")
    if selection_step is not None and (step is None or not 0 <= selection_step <= step):
        raise invalid("selection_policy_step", selection_step, f"must be between 0 and policy_step ({step})")
