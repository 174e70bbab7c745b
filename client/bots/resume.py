"""A run's place in a trainer's own checkpoint.

When a trainer goes back to an older checkpoint of its policy, the posterior should go back with it: it describes the
policy that was. But a run may be shared, and what other jobs have learned is not ours to take back. So loading a state
does this, and says which:

    current    the run is where the state was taken: nothing to do
    restored   this job alone has made events since: the run went back
    kept       other jobs have made events since (or the history no longer says who): the run is as it is
    forked     the same, and `fork_as` was given: this run object is now a new run of that name, started at the state

A job is known by its name (`Client(job=...)`), the present one or the one in the state; jobs that have no name count as
one. Every process of a job may load the state, or one of them for all; but before the first of them reports.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bots.errors import FailedPreconditionError, NotFoundError, TemporaryError
from bots.resources import ForkPoint

if TYPE_CHECKING:
    from bots.run import Run

logger = logging.getLogger("bots")

# Trainers that resume at all do so within days; a thousand states of a run take some hundred megabytes of Redis.
KEEP_SECONDS = 7 * 86_400.0
EVENTS_PER_CALL = 1_000
# Each race that is lost means that another event came in: the next look most likely finds the run shared.
MOST_RACES = 10


@dataclass(frozen=True)
class Resumed:
    """What loading a state did.

    action   "current", "restored", "kept" or "forked"; the module says when.
    version  the run's version after it.
    others   names of the other jobs that made events since the state, sorted; empty too where the history does not say.
    """

    action: Literal["current", "restored", "kept", "forked"]
    version: int
    others: tuple[str, ...] = ()


def state_dict(run: Run, ttl_seconds: float | None) -> dict[str, Any]:
    """Returns which run this is and at which version; where `ttl_seconds` is given, the version is kept for so long.

    With a fallback, and the service away, it is the newest version that this run object has seen, and not kept.
    """
    checkpoint = None
    try:
        version: int | None = run.info().version
        if ttl_seconds is not None:
            checkpoint = run.checkpoint(f"state-{version}", version=version, ttl_seconds=ttl_seconds).name
    except TemporaryError:
        if run.fallback is None:
            raise
        version = run._version
    return {
        "dataset": run.dataset,
        "run": run.name,
        "run_uid": run.uid,
        "version": version,
        "checkpoint": checkpoint,
        "job": run.client.job,
    }


def load_state_dict(run: Run, state: Mapping[str, Any], fork_as: str | None) -> Resumed:
    """Goes back to a state, or keeps or forks the run, by the table of this module.

    ValueError: the state is of another dataset or run. FailedPreconditionError (RUN_REPLACED): that run was deleted.
    NotFoundError: the state is no longer kept.
    """
    for name, here in (("dataset", run.dataset), ("run", run.name)):
        if state[name] != here:
            raise ValueError(f"state[{name!r}]: {state[name]!r}, must be {here!r}")
    run.uid = run.uid or state["run_uid"]
    info = run.info()
    if info.uid != state["run_uid"] and state["run_uid"]:
        raise FailedPreconditionError(
            f"run {run.dataset}/{run.name}: the state is of a run that was deleted",
            code="FAILED_PRECONDITION",
            reason="RUN_REPLACED",
        )
    version = state["version"]
    if version is None:
        logger.warning("run %s/%s is kept as it is: the state was taken while the service was away", *_names(run))
        return Resumed("kept", info.version)

    own = {run.client.job, state["job"]}
    for _ in range(MOST_RACES):
        now, others, known = _since(run, version, own)
        if now == version:
            return Resumed("current", now)
        if others or not known:
            return _shared(run, version, now, others, fork_as)
        try:
            return Resumed("restored", _restore(run, state, now))
        except FailedPreconditionError as race:
            if race.reason != "VERSION_MISMATCH":
                raise
    return _shared(run, version, now, others, fork_as)


def _since(run: Run, version: int, own: set[str]) -> tuple[int, tuple[str, ...], bool]:
    """Returns the run's version, the other jobs that made events since `version`, and whether every event is known."""
    now = run.info().version
    at = version
    others: set[str] = set()
    while at < now:
        events = run.events(after_version=at, limit=EVENTS_PER_CALL)
        if not events or events[0].version != at + 1:
            return now, tuple(sorted(others)), False
        others |= {event.job for event in events} - own
        at = events[-1].version
        now = max(now, at)
    # A run below the state's version has lost history (a failover, an older file): nobody can say whose.
    return now, tuple(sorted(others)), now >= version


def _restore(run: Run, state: Mapping[str, Any], now: int) -> int:
    if state["checkpoint"] is not None:
        try:
            return run.restore(checkpoint=state["checkpoint"], expected_version=now)
        except NotFoundError as error:
            if error.reason != "CHECKPOINT_NOT_FOUND":
                raise
    return run.restore(version=state["version"], expected_version=now)


def _shared(run: Run, version: int, now: int, others: tuple[str, ...], fork_as: str | None) -> Resumed:
    who = ", ".join(other or "a job without a name" for other in others) or "the history does not say who"
    if fork_as is None:
        logger.warning("run %s/%s is kept as it is: shared since the state was taken (%s)", *_names(run), who)
        return Resumed("kept", now, others)
    fork = run.client.create_run(run.dataset, fork_as, fork_from=ForkPoint(run.name, version), fallback=run.fallback)
    logger.warning("run %s/%s is shared (%s): it goes on as %s", *_names(run), who, fork_as)
    run.name, run.uid, run._version = fork.name, fork.uid, fork._version
    return Resumed("forked", run.info().version, others)


def _names(run: Run) -> tuple[str, str]:
    return run.dataset, run.name
