"""SelectBatch and ReleaseSelection: which tasks to train on next."""

from collections.abc import Sequence

import numpy as np

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import messages
from bots_server.core.posterior import Posterior
from bots_server.core.selection import Candidates, Draw, draw_quotas
from bots_server.runs.dataset import Dataset
from bots_server.errors import TooFewEligible
from bots_server.telemetry.metrics import Metrics
from bots_server.runs.replica import Replica
from bots_server.runs.registry import Replicas
from bots_server.runs.selection import Selection, Wish
from bots_server.service import rules
from bots_server.service.directory import Directory
from bots_server.service.request_ids import content_digest
from bots_server.service.task_columns import find_ids, tag_number, tag_numbers
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Claim, Part, Store

MAX_ROUNDS = 16  # each offers four times as many spare candidates as the one before: enough for any dataset
SPARE = 8

# What leaves a part of the tasks to select from.
NARROWING = ("excluded_tasks", "excluded_ids", "tags", "tag_quotas", "tag_weights")


class SelectHandlers:
    """Selections: drawn from the newest posterior, taken around the leases of others."""

    def __init__(self, store: Store, directory: Directory, replicas: Replicas, metrics: Metrics) -> None:
        self._store, self._directory, self._replicas, self._metrics = store, directory, replicas, metrics

    def select(self, request: pb.SelectBatchRequest) -> pb.SelectBatchResponse:
        check_selection(request)

        def act(run: storage.RunRecord) -> pb.SelectBatchResponse:
            response = self._select(request, run)
            leased = len(response.tasks) if request.HasField("lease_seconds") else 0
            self._metrics.observe_selection(run.dataset, run.name, len(response.tasks), leased)
            return response

        return self._directory.with_run(request.dataset, request.run, request.run_uid, act)

    def release(self, request: pb.ReleaseSelectionRequest) -> pb.ReleaseSelectionResponse:
        rules.require(bool(request.selection_id), "selection_id", "", "must be a selection's id")
        rules.uid("selection_id", request.selection_id)

        def act(run: storage.RunRecord) -> pb.ReleaseSelectionResponse:
            released = self._store.leases.release(run, request.selection_id)
            self._metrics.leases_ended("released", released)
            return pb.ReleaseSelectionResponse(released=released)

        return self._directory.with_run(request.dataset, request.run, request.run_uid, act)

    def _select(self, request: pb.SelectBatchRequest, run: storage.RunRecord) -> pb.SelectBatchResponse:
        replica = self._replicas.get(run)
        view = replica.view()
        selection = start_selection(request, view.posterior, replica)
        if request.HasField("lease_seconds") or request.request_id or view.live_leases:
            return self._claimed(request, replica, selection)
        answer = selection.answer()
        if len(answer.tasks) < request.batch_size and not request.allow_fewer:
            parts = selection.parts()
            lacking = [part.need - min(part.need, len(part.tasks)) for part in parts]
            raise shortage(request, replica.dataset, selection.draw, parts, lacking, leased=0)
        return answer

    def _claimed(
        self, request: pb.SelectBatchRequest, replica: Replica, selection: Selection
    ) -> pb.SelectBatchResponse:
        """Selects against the leases of others: offers candidates, the nearest first, until enough of them are free.

        Where a part lacks tasks and has no further candidates, going on is of no use: the claim fails, or takes what
        there is where fewer will do.
        """
        digest = content_digest(request)
        spare, fewer = SPARE, False
        for _ in range(MAX_ROUNDS):
            parts = selection.parts(spare)
            claim = self._store.leases.claim(
                replica.run,
                [Part(part.need, part.tasks.tolist()) for part in parts],
                selection.offer(parts),
                request_id=request.request_id,
                digest=digest,
                lease_seconds=request.lease_seconds if request.HasField("lease_seconds") else None,
                allow_fewer=fewer,
            )
            self._metrics.leases_ended("expired", claim.expired)
            if claim.repeated or fewer or not any(claim.short):
                return claimed_response(replica, claim)
            short = [part for part, lacking in zip(parts, claim.short, strict=True) if lacking]
            if any(part.exhausted for part in short) and not request.allow_fewer:
                break
            fewer = all(part.exhausted for part in short)
            if not fewer:
                spare *= 4
        raise shortage(request, replica.dataset, selection.draw, parts, claim.short, claim.leased)


def check_selection(request: pb.SelectBatchRequest) -> None:
    """Raises InvalidField for what can be said without the dataset."""
    rules.within("batch_size", request.batch_size, 1, rules.MAX_BATCH)
    rules.job(request.job)
    rules.request_id(request.request_id)
    if narrowed(request):
        check_narrowing(request)
    if request.HasField("lease_seconds"):
        rules.positive("lease_seconds", request.lease_seconds, rules.MAX_LEASE_SECONDS)
    if request.HasField("target"):
        rules.within("target", request.target, 0.0, 1.0)
    if request.HasField("temperature"):
        rules.within("temperature", request.temperature, 0.0, 1e6)
    for name in ("seed", "policy_step"):
        if request.HasField(name):
            rules.require(getattr(request, name) >= 0, name, getattr(request, name), "must be >= 0")


def narrowed(request: pb.SelectBatchRequest) -> bool:
    """Returns whether a selection is not from all tasks."""
    return any(getattr(request, name) for name in NARROWING)


def check_narrowing(request: pb.SelectBatchRequest) -> None:
    """Raises InvalidField for exclusions, tags, quotas and weights that break a rule."""
    excluded = len(request.excluded_tasks) + len(request.excluded_ids)
    rules.require(
        excluded <= rules.MAX_EXCLUDED,
        "excluded_tasks",
        rules.Told(f"{excluded:,} entries"),
        f"must have at most {rules.MAX_EXCLUDED:,} entries together with excluded_ids",
    )
    given = [name for name in ("tags", "tag_quotas", "tag_weights") if getattr(request, name)]
    rules.require(
        len(given) <= 1, " and ".join(given), rules.Told("present"), "at most one of tags, tag_quotas and tag_weights"
    )
    for tag, quota in request.tag_quotas.items():
        rules.within(f"tag_quotas[{tag}]", quota, 1, rules.MAX_BATCH)
    if request.tag_quotas:
        total = sum(request.tag_quotas.values())
        rules.require(
            total == request.batch_size,
            "tag_quotas",
            rules.Told(f"a sum of {total}"),
            f"must add up to batch_size, {request.batch_size}",
        )
    for tag, weight in request.tag_weights.items():
        rules.positive(f"tag_weights[{tag}]", weight, 1e300)


def start_selection(request: pb.SelectBatchRequest, posterior: Posterior, replica: Replica) -> Selection:
    """Returns the selection that a request asks for. Raises InvalidField."""
    wish = Wish(
        batch_size=request.batch_size,
        target=request.target if request.HasField("target") else None,
        greedy=request.greedy if request.HasField("greedy") else None,
        temperature=request.temperature if request.HasField("temperature") else None,
    )
    if not (request.HasField("seed") or narrowed(request)):
        return replica.ahead.take(posterior, wish)
    rng = np.random.default_rng(request.seed if request.HasField("seed") else None)
    dataset = replica.dataset
    numbers = tag_numbers(dataset)
    excluded = np.concatenate(
        [
            rules.tasks("excluded_tasks", request.excluded_tasks, len(dataset.tasks)),
            find_ids(dataset, "excluded_ids", request.excluded_ids),
        ]
    )
    quotas: dict[int, int] | None = None
    if request.tag_quotas:
        quotas = {tag_number(numbers, "tag_quotas", tag): count for tag, count in request.tag_quotas.items()}
    elif request.tag_weights:
        weights = {tag_number(numbers, "tag_weights", tag): weight for tag, weight in request.tag_weights.items()}
        quotas = draw_quotas(rng, request.batch_size, weights)
    tags = [tag_number(numbers, "tags", tag) for tag in request.tags]
    return Selection(rng, replica.run, dataset, posterior, wish, excluded=excluded, tags=tags or None, quotas=quotas)


def shortage(
    request: pb.SelectBatchRequest,
    dataset: Dataset,
    draw: Draw,
    parts: Sequence[Candidates],
    lacking: Sequence[int],
    leased: int,
) -> TooFewEligible:
    """Returns the error of too few eligible tasks, with the counts behind it: of the batch, and of a tag that lacks."""
    counts = draw.counts
    eligible = min(counts.eligible, sum(part.need for part in parts) - sum(lacking))
    message = (
        f"eligible {eligible:,}, of {counts.asked:,} asked: excluded {counts.excluded:,}, "
        f"cooling {counts.cooling:,}, leased {leased:,}"
    )
    for part, missing in zip(parts, lacking, strict=True):
        if missing and part.tag is not None:
            message += f"; tag {dataset.tasks.tags[part.tag]!r} lacks {missing:,} of {part.need:,}"
    return TooFewEligible(request.batch_size, message)


def claimed_response(replica: Replica, claim: Claim) -> pb.SelectBatchResponse:
    """Returns the entries of an offer that were taken."""
    offer, taken = claim.offer, claim.taken
    tasks = [offer.tasks[position] for position in taken]
    ids = replica.dataset.ids
    return pb.SelectBatchResponse(
        tasks=tasks,
        ids=ids.names(np.array(tasks, dtype=np.int64)) if ids else None,
        means=[offer.means[position] for position in taken],
        draws=[offer.draws[position] for position in taken],
        version=offer.version,
        run_uid=replica.run.uid,
        selection_id=offer.selection_id,
        lease_expire_time=messages.timestamp(claim.expire_time_ms or 0),
    )
