"""Selections: the request, its checks, and the batch that comes back or is drawn without the service."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from bots import columns, fallback
from bots.calls import Steps
from bots.columns import Column, Tasks
from bots.errors import TemporaryError, UnavailableError, invalid
from bots.fallback import SelectionSpec
from bots.handle import RunHandle, rows_or_ids
from bots.records import utc
from bots.request_ids import derived_digest, derived_request_id, new_request_id
from bots.v1 import task_selection_pb2 as pb

logger = logging.getLogger("bots")

MOST_TASKS = 10_000
MOST_EXCLUDED = 100_000


def select(
    run: RunHandle,
    batch_size: int,
    *,
    key: str | None = None,
    lease_seconds: float | None = None,
    exclude: Tasks = (),
    rows: bool = False,
    tags: str | Column = (),
    tag_quotas: Mapping[str, int] | None = None,
    tag_weights: Mapping[str, float] | None = None,
    fill: bool = False,
    target: float | Mapping[str, float] | None = None,
    uniform_fraction: float | None = None,
    temperature: float | None = None,
    greedy: bool | None = None,
    allow_fewer: bool = False,
    seed: int | None = None,
    policy_step: int | None = None,
) -> Steps[Any]:
    """Returns the tasks to train on next (guarantees 2 and 4), drawn uniformly if the service is away.

    batch_size     1 to 10000.
    key            all ranks of this start of the job that give one key get one batch, within an hour; after
                   `load_state_dict` a key means a new batch. None: a batch of this caller alone.
    lease_seconds  above 0 and at most the server's max_lease_seconds (3600 unless configured): no other selection of
                   the run gets these tasks until they are reported, released, or the time is over. None: no lease.
    exclude        tasks not to select, at most 100000: ids if the dataset has ids, else row numbers.
    rows           `exclude` is row numbers although the dataset has ids.
    tags           one tag or several: the tasks of these tags alone.
    tag_quotas     number of tasks of each tag, adding up to batch_size; 0 is none of it.
    tag_weights    the quotas are drawn with these weights over the tags that have eligible tasks; 0 is none of it.
    fill           fill a tag that has too few eligible tasks from the others of the quotas or weights.
    target         in place of the run's: one pass rate, or tag -> pass rate.
    uniform_fraction, temperature, greedy
                   in place of the run's hyperparameters.
    allow_fewer    return fewer tasks if fewer are eligible, instead of FailedPreconditionError (TOO_FEW_ELIGIBLE).
    seed           at least 0. Same seed, version and eligible set: same batch.
    policy_step    the policy's training step, at least 0; `Batch.report(policy_step=)` passes it on.
    """
    began = time.monotonic()
    chosen = _tags(tags, tag_quotas, tag_weights)
    targets = dict(target) if isinstance(target, Mapping) else {}
    excluded_rows, excluded_ids = yield from _excluded(run, exclude, rows)
    spec = SelectionSpec(
        batch_size=columns.whole("batch_size", columns.plain(batch_size)),
        excluded_rows=excluded_rows,
        excluded_ids=excluded_ids,
        **chosen,
        fill=fill,
        allow_fewer=allow_fewer,
    )
    overrides = _overrides(
        target=None if isinstance(target, Mapping) else target,
        uniform_fraction=uniform_fraction,
        temperature=temperature,
        greedy=greedy,
    )
    request = pb.SelectBatchRequest(
        job=run.session.job,
        incarnation=run.session.incarnation,
        batch_size=spec.batch_size,
        excluded_tasks=excluded_rows,
        excluded_ids=excluded_ids,
        fill=fill,
        tag_targets={tag: _within(f"target[{tag!r}]", value, 0, 1) for tag, value in targets.items()},
        lease_seconds=_optional("lease_seconds", lease_seconds),
        allow_fewer=allow_fewer,
        overrides=overrides,
        seed=None if seed is None else columns.whole("seed", columns.plain(seed)),
        policy_step=None if policy_step is None else columns.whole("policy_step", columns.plain(policy_step)),
    )
    if spec.tags:
        request.any_of.tags.extend(spec.tags)
    elif spec.quotas:
        request.quotas.tasks.update(spec.quotas)
    elif spec.weights:
        request.weights.weights.update(spec.weights)
    _check(spec, request)
    batch = yield from _select(run, spec, request, key)
    run.counters.add("select", time.monotonic() - began, fallback=batch.fallback)
    return batch


def _select(run: RunHandle, spec: SelectionSpec, request: pb.SelectBatchRequest, key: str | None) -> Steps[Any]:
    session = run.session
    failure: TemporaryError | None = None
    if session.strict or session.availability.reachable:
        try:
            if key is not None and not run.uid:
                info = (yield from session.ask("GetRun", pb.GetRunRequest(run=run.ref()))).run
                run.saw(info.ref.uid, info.version)
            request.run.CopyFrom(run.ref())
            # With an id the service stores the answer, which a full store refuses: only where a repeat must find it.
            if key is not None:
                request.request_id = derived_request_id(*_of_key(run, key))
            elif request.HasField("lease_seconds"):
                request.request_id = new_request_id()
            answer = yield from session.ask("SelectBatch", request)
        except TemporaryError as error:
            if session.strict:
                raise
            failure = error
        else:
            run.saw(answer.run_uid, answer.version)
            session.availability.restored()
            session.want(run.dataset, run.name)
            return _answered(run, answer, request)
    known = session.known(run.dataset)
    if known is None:
        raise UnavailableError(
            f"{failure or 'the service is away'}; there is no fallback, because the tasks of dataset {run.dataset} are "
            "not known to this process (they are learned from create_dataset, from the first selection, or from "
            "Client(outbox=PATH))",
            code="UNAVAILABLE",
        )
    batch = _drawn(run, known, spec, request, key)
    session.availability.degraded(failure, selections=1)
    if (spec.tags or spec.quotas or spec.weights) and known.tag is None:
        logger.warning("run %s/%s: the tags of its tasks are not known, so the batch is of all tags", *run.lane)
    return batch


def _of_key(run: RunHandle, key: str) -> tuple[object, ...]:
    return "select", run.uid, run.session.job, run.session.incarnation, run.loads, key


def _answered(run: RunHandle, answer: pb.SelectBatchResponse, request: pb.SelectBatchRequest) -> Any:
    size = len(answer.tasks)
    return run.batch_type(
        tasks=np.fromiter(answer.tasks, np.int64, size),
        ids=list(answer.ids) or None,
        means=np.fromiter(answer.means, np.float64, len(answer.means)),
        draws=np.fromiter(answer.draws, np.float64, len(answer.draws)),
        version=answer.version,
        run_uid=answer.run_uid,
        selection_id=answer.selection_id,
        lease_expire_time=utc(answer.lease_expire_time) if answer.HasField("lease_expire_time") else None,
        resting_tasks=answer.resting_tasks,
        policy_step=request.policy_step if request.HasField("policy_step") else None,
        fallback=False,
        positions=np.arange(size),
        size=size,
        run=run,
    )


def _drawn(
    run: RunHandle, known: fallback.KnownTasks, spec: SelectionSpec, request: pb.SelectBatchRequest, key: str | None
) -> Any:
    """Returns a batch without the service; ranks with one key draw one batch here too."""
    digest = derived_digest(*(_of_key(run, key) if key is not None else (new_request_id(),)))
    seed = request.seed if request.HasField("seed") else int.from_bytes(digest, "big")
    rows = fallback.select(np.random.default_rng(seed), known, spec)
    unknown = np.full(len(rows), np.nan)
    return run.batch_type(
        tasks=rows,
        ids=None if known.ids is None else [known.ids[row] for row in rows.tolist()],
        means=unknown,
        draws=unknown,
        version=None,
        run_uid=run.uid,
        # The service takes any id here: it joins the reports of parts to one update.
        selection_id=digest.hex()[:32],
        lease_expire_time=None,
        resting_tasks=0,
        policy_step=request.policy_step if request.HasField("policy_step") else None,
        fallback=True,
        positions=np.arange(len(rows)),
        size=len(rows),
        run=run,
    )


def _excluded(run: RunHandle, exclude: Tasks, rows: bool) -> Steps[tuple[list[int], list[str]]]:
    entries = columns.values("exclude", exclude)
    if not entries:
        return [], []
    excluded_rows, excluded_ids = yield from rows_or_ids(run, "exclude", exclude, rows, ordered=False)
    if (known := run.session.known(run.dataset)) is not None:
        fallback.check_rows("exclude", excluded_rows, known.size)
        fallback.check_ids("exclude", excluded_ids, known)
    return excluded_rows, excluded_ids


def _tags(tags: str | Column, quotas: Mapping[str, int] | None, weights: Mapping[str, float] | None) -> dict[str, Any]:
    any_of = list(dict.fromkeys(columns.texts("tags", tags)))
    if sum((bool(any_of), quotas is not None, weights is not None)) > 1:
        raise invalid("tags", "more than one", "must be one of tags, tag_quotas and tag_weights")
    return {
        "tags": any_of,
        "quotas": {tag: columns.whole(f"tag_quotas[{tag!r}]", columns.plain(n)) for tag, n in (quotas or {}).items()},
        "weights": {
            tag: columns.number(f"tag_weights[{tag!r}]", columns.plain(w)) for tag, w in (weights or {}).items()
        },
    }


def _overrides(**values: Any) -> pb.Hyperparameters | None:
    given = {name: value for name, value in values.items() if value is not None}
    if not given:
        return None
    for name, high in (("target", 1), ("uniform_fraction", 1), ("temperature", 1e6)):
        if name in given:
            given[name] = _within(name, given[name], 0, high)
    if "greedy" in given:
        given["greedy"] = bool(columns.whole("greedy", columns.plain(given["greedy"])))
    return pb.Hyperparameters(**given)


def _within(field: str, value: Any, low: float, high: float) -> float:
    number = columns.number(field, columns.plain(value))
    if not low <= number <= high:
        raise invalid(field, number, f"must be between {low:g} and {high:.0f}")
    return number


def _optional(field: str, value: Any) -> float | None:
    return None if value is None else columns.number(field, columns.plain(value))


def _check(spec: SelectionSpec, request: pb.SelectBatchRequest) -> None:
    """InvalidArgumentError: a value breaks a rule of SelectBatch that does not depend on the run."""
    if not 1 <= spec.batch_size <= MOST_TASKS:
        raise invalid("batch_size", spec.batch_size, f"must be between 1 and {MOST_TASKS}")
    if len(spec.excluded_rows) + len(spec.excluded_ids) > MOST_EXCLUDED:
        count = len(spec.excluded_rows) + len(spec.excluded_ids)
        raise invalid("exclude", f"{count} entries", f"must be at most {MOST_EXCLUDED} entries")
    if request.HasField("lease_seconds") and not request.lease_seconds > 0:
        raise invalid("lease_seconds", request.lease_seconds, "must be above 0")
    for name in ("seed", "policy_step"):
        if request.HasField(name) and getattr(request, name) < 0:
            raise invalid(name, getattr(request, name), "must be at least 0")
    for tag, quota in spec.quotas.items():
        if quota < 0:
            raise invalid(f"tag_quotas[{tag!r}]", quota, "must be at least 0")
    if spec.quotas and sum(spec.quotas.values()) != spec.batch_size:
        raise invalid("tag_quotas", f"a sum of {sum(spec.quotas.values())}", f"must add up to {spec.batch_size}")
    for tag, weight in spec.weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise invalid(f"tag_weights[{tag!r}]", weight, "must be finite and at least 0")
    if spec.weights and not any(spec.weights.values()):
        raise invalid("tag_weights", "only 0", "must have one above 0")
