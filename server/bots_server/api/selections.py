"""SelectBatch, ReleaseSelection, ListLeases, EndLeases: which tasks to train on next, and who has them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import checks, messages
from bots_server.api.callers import caller
from bots_server.api.checks import Number
from bots_server.api.identity import digest
from bots_server.core.arrays import distinct
from bots_server.core.draw import SelectionSpec
from bots_server.core.hyperparameters import RULES
from bots_server.errors import Described, InvalidField
from bots_server.runs.dataset import Dataset
from bots_server.runs.replica import Replica
from bots_server.runs.selection import ClaimTerms, Selection, claimed, draw, unclaimed
from bots_server.store import Holder, Store
from bots_server.telemetry.metrics import Metrics

MAX_BATCH = 10_000
MAX_EXCLUDED = 100_000
MAX_LISTED = 1_000_000  # leases
OVERRIDES = ("target", "uniform_fraction", "temperature", "greedy")


class SelectionHandlers:
    """Selections: drawn from the newest posterior, taken around the leases of others."""

    def __init__(self, store: Store, metrics: Metrics, *, max_lease_seconds: float) -> None:
        self._store, self._metrics, self._max_lease_seconds = store, metrics, max_lease_seconds

    def select_batch(self, request: pb.SelectBatchRequest, run: Replica) -> pb.SelectBatchResponse:
        spec = selection_spec(request, run.dataset)
        terms = claim_terms(request, spec, self._max_lease_seconds)
        seed = checks.at_least_zero("seed", request.seed) if request.HasField("seed") else None
        if request.HasField("policy_step"):
            checks.at_least_zero("policy_step", request.policy_step)

        view, tasks = run.view(), run.dataset.tasks
        drawn = run.drawn(view.posterior, spec) if seed is None else draw(view.posterior, tasks, spec, seed)
        # Without leases an incarnation has none to end.
        if terms.lease_seconds is None and not terms.request_id and not view.leases:
            selection = unclaimed(drawn, tasks, allow_fewer=request.allow_fewer)
        else:
            selection, claim = claimed(self._store, run.record, drawn, tasks, terms, allow_fewer=request.allow_fewer)
            self._metrics.leases_ended("expired", claim.expired)
            self._metrics.leases_ended("superseded", claim.ended)
        leased = len(selection.tasks) if terms.lease_seconds is not None else 0
        self._metrics.observe_selection(run.record.dataset, run.record.name, len(selection.tasks), leased)
        return selection_response(selection, run)

    def release_selection(self, request: pb.ReleaseSelectionRequest, run: Replica) -> pb.ReleaseSelectionResponse:
        checks.require(bool(request.selection_id), "selection_id", "", "must be the id of a selection")
        checks.uid("selection_id", request.selection_id)
        tasks = checks.tasks(run.dataset, request.tasks, request.ids, 0, MAX_BATCH)
        released = self._store.leases.release(run.record, request.selection_id, tasks.tolist() or None)
        self._metrics.leases_ended("released", released)
        return pb.ReleaseSelectionResponse(released=released)

    def list_leases(self, request: pb.ListLeasesRequest, run: Replica) -> pb.ListLeasesResponse:
        page = checks.page(request.page_size, request.page_token, "leases", run.record.uid)
        found = self._store.leases.list(run.record, page.after, page.size)
        return pb.ListLeasesResponse(
            leases=map(messages.lease, found), next_page_token=page.next_token([one.selection_id for one in found])
        )

    def end_leases(self, request: pb.EndLeasesRequest, run: Replica) -> pb.EndLeasesResponse:
        if request.HasField("job"):
            job, live = checks.job(request.job), self._store.leases.list(run.record, limit=MAX_LISTED)
            holders = {lease.holder for lease in live if lease.holder.job == job}
            ended = sum(self._store.leases.end(run.record, holder) for holder in holders)
        else:
            ended = self._store.leases.end(run.record, None)
        self._metrics.leases_ended("ended", ended)
        return pb.EndLeasesResponse(ended=ended)


def selection_spec(request: pb.SelectBatchRequest, dataset: Dataset) -> SelectionSpec:
    """Returns what a request asks to draw. Raises InvalidField."""
    checks.within("batch_size", request.batch_size, 1, MAX_BATCH)
    fields = "excluded_tasks", "excluded_ids"
    excluded = checks.tasks(dataset, request.excluded_tasks, request.excluded_ids, 0, MAX_EXCLUDED, fields)
    any_of, quotas, weights = None, None, None
    match request.WhichOneof("tags"):
        case "any_of":
            any_of = asked_tags(request.any_of.tags, dataset)
        case "quotas":
            quotas = tag_numbers("quotas.tasks", request.quotas.tasks, dataset)
            for tag, quota in request.quotas.tasks.items():
                checks.at_least_zero(f"quotas.tasks[{tag!r}]", quota)
            total = sum(request.quotas.tasks.values())
            rule = f"must add up to batch_size, {request.batch_size}"
            checks.require(total == request.batch_size, "quotas.tasks", Described(f"a sum of {total}"), rule)
        case "weights":
            weights = tag_numbers("weights.weights", request.weights.weights, dataset)
            for tag, weight in request.weights.weights.items():
                checks.require(
                    0 <= weight < np.inf, f"weights.weights[{tag!r}]", weight, "must be finite and at least 0"
                )
            largest = max(request.weights.weights.values(), default=0.0)
            checks.require(largest > 0, "weights.weights", Described("no weight above 0"), "must have a weight above 0")
    if request.fill:
        checks.require(
            any_of is None and (quotas or weights) is not None, "fill", True, "must come with quotas or weights"
        )
    for tag, target in request.tag_targets.items():
        checks.within(f"tag_targets[{tag!r}]", target, 0.0, 1.0)
    return SelectionSpec(
        batch_size=request.batch_size,
        excluded=tuple(distinct(excluded).tolist()),
        any_of=any_of,
        quotas=quotas,
        weights=weights,
        fill=request.fill,
        tag_targets=tag_numbers("tag_targets", request.tag_targets, dataset),
        **overrides(request),
    )


def asked_tags(tags: Sequence[str], dataset: Dataset) -> tuple[int, ...]:
    """Returns the numbers of distinct tags, ascending, at least one."""
    checks.entries("any_of.tags", tags, 1, max(1, len(dataset.tasks.tags)))
    checks.distinct("any_of.tags", tags)
    return tuple(sorted(checks.tag(dataset, f"any_of.tags[{index}]", tag) for index, tag in enumerate(tags)))


def tag_numbers(field: str, values: Mapping[str, Number], dataset: Dataset) -> tuple[tuple[int, Number], ...]:
    """Returns pairs of the number of a tag and its value, ascending."""
    return tuple(sorted((checks.tag(dataset, f"{field}[{tag!r}]", tag), value) for tag, value in values.items()))


def overrides(request: pb.SelectBatchRequest) -> dict[str, Any]:
    """Returns the hyperparameters that a request gives in place of the run's."""
    given = messages.present(request.overrides)
    for name, value in given.items():
        field = f"overrides.{name}"
        checks.require(name in OVERRIDES, field, value, f"must be absent: only {', '.join(OVERRIDES)} may be given")
        if not RULES[name].holds(value):
            raise InvalidField(field, value, f"must be {RULES[name].words}")
    return given


def claim_terms(request: pb.SelectBatchRequest, spec: SelectionSpec, max_lease_seconds: float) -> ClaimTerms:
    """Returns how the selection is to be claimed. Raises InvalidField."""
    lease = None
    if request.HasField("lease_seconds"):
        lease = checks.above_zero("lease_seconds", request.lease_seconds, max_lease_seconds)
    content = (getattr(spec, name) for name in SelectionSpec.__dataclass_fields__)
    seed = request.seed if request.HasField("seed") else None
    is_kept = request.request_id or lease is not None  # the answer, with the digest
    return ClaimTerms(
        request_id=checks.request_id(request.request_id),
        digest=digest("select", content, lease, request.allow_fewer, seed) if is_kept else b"",
        holder=Holder(caller().identity, checks.job(request.job)),
        incarnation=checks.incarnation(request.incarnation),
        lease_seconds=lease,
    )


def selection_response(selection: Selection, run: Replica) -> pb.SelectBatchResponse:
    """Returns a selection as it is answered."""
    ids = run.dataset.ids
    return pb.SelectBatchResponse(
        tasks=selection.tasks.tolist(),
        ids=ids.names(selection.tasks) if ids else None,
        means=selection.means.tolist(),
        draws=selection.draws.tolist(),
        version=selection.version,
        run_uid=run.record.uid,
        selection_id=selection.id,
        lease_expire_time=messages.timestamp(selection.expire_time_ms),
        resting_tasks=selection.resting,
    )
