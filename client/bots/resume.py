"""A run's place in a trainer's own checkpoint.

When a trainer goes back to an older checkpoint of its policy, the posterior should go back with it. A run may be
shared, and what other jobs have learned must stay. Loading a state does one of these, and says which:

    current    the run is where the state was taken: nothing to do
    restored   only this job has made events since: the run went back
    kept       other jobs have made events since (or the history no longer tells): the run stays as it is
    forked     the same, and `fork_as` was given: `Resumed.run` is a new run of that name, started at the state
    deferred   the service is away: one of the first three happens when it is back, before any report of this process

A job is known by its name (`Client(job=...)`), the present one or the one in the state; jobs without a name count as
one. Every process of a job loads the state, in any order, with reports between: the restore has one request id, made
of the state, the incarnation, and how often this process has loaded a state of this run, so it is done once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from bots.calls import Steps
from bots.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError, invalid
from bots.request_ids import derived_request_id
from bots.v1 import task_selection_pb2 as pb

logger = logging.getLogger("bots")

R = TypeVar("R")

# Trainers that resume do so within days; a thousand states of a run take some hundred megabytes of Redis.
KEEP_SECONDS = 7 * 86_400.0
EVENTS_PER_CALL = 1_000
# Each race that is lost means that another event came in: the next look most likely finds the run shared.
MOST_RACES = 10


class Asking(Protocol):
    """What is needed to resume: a job, its incarnation, and calls."""

    job: str
    incarnation: str

    def ask(self, method: str, request: Any, /, *, first_sent: float | None = None) -> Steps[Any]:
        """Returns the answer of one call."""


@dataclass(frozen=True)
class Resumed(Generic[R]):
    """What loading a state did.

    action   "current", "restored", "kept", "forked" or "deferred"; the module says when.
    version  the run's version after it; None: deferred.
    run      the run to go on with: a new one if forked, else the same.
    others   names of the other jobs that made events since the state, sorted; empty too if the history does not tell.
    """

    action: Literal["current", "restored", "kept", "forked", "deferred"]
    version: int | None
    run: R
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What `resume` did: the fields of `Resumed` without the run."""

    action: Literal["current", "restored", "kept"]
    version: int
    others: tuple[str, ...] = ()


def check(state: Mapping[str, Any], dataset: str, run: str) -> None:
    """InvalidArgumentError: the state is of another dataset or run."""
    for name, here in (("dataset", dataset), ("run", run)):
        if state[name] != here:
            raise invalid(f"state[{name!r}]", repr(state[name]), f"must be {here!r}")


def resume(
    asking: Asking, ref: pb.RunRef, state: Mapping[str, Any], load: int, sent: float | None = None
) -> Steps[Outcome]:
    """Goes back to a state if no other job is in the way.

    load  how often this process has loaded a state of this run.
    sent  when the restore was first asked for; None: now.
    FailedPreconditionError (RUN_REPLACED): the state is of a run that was deleted. NotFoundError: it is not kept.
    """
    version = state["version"]
    info = (yield from asking.ask("GetRun", pb.GetRunRequest(run=ref))).run
    if state["run_uid"] and info.ref.uid != state["run_uid"]:
        raise FailedPreconditionError(
            f"run {ref.dataset}/{ref.name}: the state is of a run that was deleted",
            code="FAILED_PRECONDITION",
            reason="RUN_REPLACED",
        )
    if version is None:
        logger.warning("run %s/%s is kept: the state was taken while the service was away", ref.dataset, ref.name)
        return Outcome("kept", info.version)
    request_id = derived_request_id("restore", info.ref.uid, version, asking.incarnation, load)
    own = {asking.job, state["job"]}
    for _ in range(MOST_RACES):
        since = yield from _since(asking, ref, version, own, request_id)
        if since.restored:
            return Outcome("restored", since.version)
        if since.version == version:
            return Outcome("current", version)
        if since.others or not since.known:
            who = ", ".join(other or "a job without a name" for other in since.others)
            who = who or "the history does not tell by whom"
            logger.warning("run %s/%s is kept: it changed since the state (%s)", ref.dataset, ref.name, who)
            return Outcome("kept", since.version, since.others)
        try:
            return Outcome("restored", (yield from _restore(asking, ref, state, since.version, request_id, sent)))
        except (FailedPreconditionError, InvalidArgumentError) as race:
            # Another event came in, or another rank restored at another version.
            if race.reason not in ("VERSION_MISMATCH", "REQUEST_ID_REUSED"):
                raise
    return Outcome("kept", since.version, since.others)


def resume_later(asking: Asking, dataset: str, run: str, payload: bytes, sent: float) -> Steps[Outcome]:
    """Does now what was deferred; `payload` is JSON of `deferred`."""
    deferred = json.loads(payload)
    ref = pb.RunRef(dataset=dataset, name=run)
    outcome = yield from resume(asking, ref, deferred["state"], deferred["load"], sent)
    logger.warning(
        "run %s/%s: the state that waited is loaded: %s at version %s", dataset, run, outcome.action, outcome.version
    )
    return outcome


def deferred(state: Mapping[str, Any], load: int) -> bytes:
    """Returns a load to do later, as JSON."""
    return json.dumps({"state": dict(state), "load": load}).encode()


@dataclass(frozen=True)
class _Since:
    """The events since a state: the run's version now, the jobs that made them (if all are known), whether one of them
    is the restore that is asked for.
    """

    version: int
    others: tuple[str, ...]
    known: bool
    restored: bool


def _since(asking: Asking, ref: pb.RunRef, version: int, own: set[str], request_id: str) -> Steps[_Since]:
    now = at = version
    others: set[str] = set()
    restored = False
    known = True
    token = ""
    while True:
        request = pb.ListEventsRequest(run=ref, after_version=version, page_size=EVENTS_PER_CALL, page_token=token)
        page = yield from asking.ask("ListEvents", request)
        for event in page.events:
            known = known and event.version == at + 1
            at = event.version
            others |= {event.job} - own
            restored = restored or event.request_id == request_id
        now, token = page.version, page.next_page_token
        if not token:
            break
    # A run below the state's version has lost history (a failover, an older file).
    return _Since(now, tuple(sorted(others)), known and at == now, restored)


def _restore(
    asking: Asking, ref: pb.RunRef, state: Mapping[str, Any], now: int, request_id: str, sent: float | None
) -> Steps[int]:
    for point in _points(state):
        request = pb.RestoreRunRequest(
            run=ref,
            expected_version=now,
            job=asking.job,
            request_id=request_id,
            **point,
        )
        try:
            answer = yield from asking.ask("RestoreRun", request, first_sent=sent)
            version: int = answer.version
            return version
        except NotFoundError as error:
            if error.reason != "CHECKPOINT_NOT_FOUND":
                raise
    raise AssertionError("the last point is a version")


def _points(state: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if state["checkpoint"] is not None:
        yield {"checkpoint": state["checkpoint"]}
    yield {"version": state["version"]}
