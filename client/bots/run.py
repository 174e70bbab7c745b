"""The loop of a trainer: select a batch, report its outcomes; and everything else that one does with a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from bots import resume
from bots.batch import Batch
from bots.channel import Channel, Request, Response
from bots.columns import Tasks, indices_and_ids, rollouts_column, successes_column
from bots.errors import BrokenError, DeadlineExceededError, FailedPreconditionError, RefusedError, TemporaryError
from bots.fallback import Fallback, Wish, uniform_batch
from bots.history import Checkpoint, Event
from bots.outbox import Deadline, Outbox
from bots.request_ids import new_request_id
from bots.resources import RunInfo, hyperparameters_message
from bots.summary import Summary
from bots.v1 import task_selection_pb2 as pb

if TYPE_CHECKING:
    from bots.channel import Method
    from bots.client import Client

logger = logging.getLogger("bots")

T = TypeVar("T")

# A watch is asked again after so many seconds, so that it too has a deadline and a server that died is noticed.
WATCH_SECONDS = 60.0


class Run:
    """The posterior of one policy over one dataset. Made by `Client.run` and `Client.create_run`.

    The first answer of the service fixes which run this is (`uid`): when the run is deleted and another one created
    under its name, calls fail with FailedPreconditionError (RUN_REPLACED) and mix nothing. Every call raises the errors
    of `bots.errors` within the client's deadline. Picklable (reports that are pending stay behind); safe to share among
    threads.
    """

    def __init__(
        self, client: Client, dataset: str, name: str, *, uid: str = "", fallback: Fallback | None = None
    ) -> None:
        self.client = client
        self.dataset = dataset
        self.name = name
        self.uid = uid
        self.fallback = fallback
        self._outbox = Outbox(fallback.pending_reports if fallback else 0)
        self._version: int | None = None

    def __repr__(self) -> str:
        return f"Run({self.dataset}/{self.name})"

    @property
    def _channel(self) -> Channel:
        return self.client._channel

    # ------------------------------------------------------------------------------------------------ the loop

    def select(
        self,
        batch_size: int,
        *,
        lease_seconds: float | None = None,
        exclude: Tasks = (),
        tags: Collection[str] = (),
        tag_quotas: Mapping[str, int] | None = None,
        tag_weights: Mapping[str, float] | None = None,
        allow_fewer: bool = False,
        target: float | None = None,
        greedy: bool | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        policy_step: int | None = None,
        request_id: str | None = None,
    ) -> Batch:
        """Returns the tasks to train on next: those whose drawn pass rate is nearest to the target.

        A selection sees every report acknowledged before it was asked (on the same Redis primary). Selection has
        exactly the distribution of drawing every task.

        batch_size     1 to 10,000.
        lease_seconds  in (0, 86,400]: no other live selection of the run gets these tasks until they are reported
                       complete, released, or the time is over. None: no lease.
        exclude        tasks (or ids) not to select, at most 10,000.
        tags           select among the tasks of these tags alone.
        tag_quotas     so many tasks of each tag, adding up to batch_size.
        tag_weights    the quotas are drawn with these weights. At most one of the three.
        allow_fewer    return what is eligible where it is less than batch_size, instead of FailedPreconditionError
                       (TOO_FEW_ELIGIBLE).
        target, greedy, temperature  in place of the run's hyperparameters.
        seed           >= 0. Same seed, version and eligible set: same batch.
        policy_step    the policy's training step, >= 0; `Batch.report` passes it on.
        request_id     a UUIDv7, to repeat a call of yours; a selection that leases gets one by itself.
        """
        wish = Wish(batch_size, exclude, tags, tag_quotas or {}, tag_weights or {})
        if self.fallback is not None:
            wish.check(self.fallback)
        excluded_tasks, excluded_ids = indices_and_ids(exclude)
        request = pb.SelectBatchRequest(
            dataset=self.dataset,
            run=self.name,
            run_uid=self.uid,
            batch_size=batch_size,
            job=self.client.job,
            request_id=request_id or (new_request_id() if lease_seconds is not None else ""),
            excluded_tasks=excluded_tasks,
            excluded_ids=excluded_ids,
            tags=tags,
            tag_quotas=tag_quotas,
            tag_weights=tag_weights,
            lease_seconds=lease_seconds,
            allow_fewer=allow_fewer,
            target=target,
            greedy=greedy,
            temperature=temperature,
            seed=seed,
            policy_step=policy_step,
        )
        answer = self._bridged(lambda timeout: self._call(self._channel.stub.SelectBatch, request, timeout))
        if answer is None:
            assert self.fallback is not None
            return uniform_batch(self, self.fallback, wish, allow_fewer=allow_fewer, seed=seed, policy_step=policy_step)
        self._saw(answer.run_uid, answer.version)
        return Batch.of(answer, self, policy_step)

    def report(
        self,
        tasks: Tasks,
        successes: npt.ArrayLike,
        rollouts: npt.ArrayLike,
        *,
        selection_id: str = "",
        complete: bool = True,
        policy_step: int | None = None,
        selection_policy_step: int | None = None,
        request_id: str | None = None,
    ) -> int | None:
        """Reports outcomes; returns the version that they made, or None where a run with a fallback keeps them to send
        later.

        An acknowledged report is stored at the configured durability and applied exactly once, in an order all servers
        agree on; a repeat of its request_id changes nothing and returns the first answer, or is refused when too old to
        know.

        tasks         indices or ids, 1 to 100,000; a task may appear several times, its counts add.
        successes     one number, or one for each task: in [0, rollouts]; fractions are allowed (graded rewards).
        rollouts      one whole number, or one for each task: in [1, 1,000,000].
        selection_id  the selection that they answer, and whether it is `complete`: then its leases are released.
        policy_step   the policy's training step now, and at the selection (`selection_policy_step`): how stale it was.
        request_id    a UUIDv7, to repeat a call of yours; every report gets one by itself.
        """
        indices, ids = indices_and_ids(tasks)
        outcomes = len(indices) + len(ids)
        request = pb.ReportOutcomesRequest(
            dataset=self.dataset,
            run=self.name,
            run_uid=self.uid,
            job=self.client.job,
            request_id=request_id or new_request_id(),
            selection_id=selection_id,
            complete=complete,
            policy_step=policy_step,
            selection_policy_step=selection_policy_step,
            tasks=indices,
            ids=ids,
            successes=successes_column(successes, outcomes),
            rollouts=rollouts_column(rollouts, outcomes),
        )
        version = self._bridged(lambda timeout: self._send(request, timeout))
        if version is None:
            self._outbox.keep(request)
        return version

    def _send(self, report: pb.ReportOutcomesRequest, timeout: float) -> int:
        answer = self._call(self._channel.stub.ReportOutcomes, report, timeout)
        self._saw(answer.run_uid, answer.version)
        return answer.version

    def _call(self, method: Method[Request, Response], request: Request, timeout: float) -> Response:
        # A service that was away is not waited for again, only asked.
        return self._channel.call(method, request, timeout, wait_for_ready=self.client.away_until is None)

    def _bridged(self, call: Callable[[float], T]) -> T | None:
        """Returns what `call(timeout)` returns, older reports delivered before it; None: the service is away, and this
        run has a fallback."""
        client = self.client
        if self.fallback is None:
            return call(client.timeout)
        away_until = client.away_until
        if away_until is not None and time.monotonic() < away_until:
            return None
        deadline = Deadline(client.timeout)
        try:
            self._deliver_older(deadline)
            result = call(deadline.left())
        except TemporaryError:
            client.away_until = time.monotonic() + client.timeout
            return None
        client.away_until = None
        return result

    def _deliver_older(self, deadline: Deadline) -> None:
        try:
            self._outbox.deliver(lambda report: self._send(report, deadline.left()), deadline.half)
        except (RefusedError, BrokenError) as error:
            # It may be the older report's trouble alone; where it is not, the call says so itself.
            logger.warning("run %s/%s: %d reports stay pending: %s", self.dataset, self.name, len(self._outbox), error)

    @property
    def pending_reports(self) -> int:
        """Number of reports that wait for the service to be back (only with a fallback)."""
        return len(self._outbox)

    @property
    def dropped_reports(self) -> int:
        """Number of reports that were kept and then given up: too many, or never to be accepted (only with a
        fallback).
        """
        return self._outbox.dropped

    def flush(self) -> None:
        """Delivers the pending reports now; where it raises, those that are left are kept.

        DeadlineExceededError: some are left when the client's timeout has passed. Another error of `bots.errors`: one
        could not be delivered.
        """
        deadline = Deadline(self.client.timeout)
        if not self._outbox.deliver(lambda report: self._send(report, deadline.left()), deadline.end):
            raise DeadlineExceededError(
                f"run {self.dataset}/{self.name}: {self.pending_reports} reports are pending still after "
                f"{self.client.timeout:.3g} s",
                code="DEADLINE_EXCEEDED",
            )
        self.client.away_until = None

    def release(self, selection_id: str) -> int:
        """Gives back the leases of a selection that will not be reported; returns how many tasks that frees."""
        request = pb.ReleaseSelectionRequest(
            dataset=self.dataset, run=self.name, run_uid=self.uid, selection_id=selection_id
        )
        answer = self._bridged(lambda timeout: self._call(self._channel.stub.ReleaseSelection, request, timeout))
        # Where the service is away the clock ends the leases.
        return 0 if answer is None else answer.released

    # ------------------------------------------------------------------------------------------------ looking at it

    def info(self) -> RunInfo:
        """Returns the run's current hyperparameters and version."""
        request = pb.GetRunRequest(dataset=self.dataset, name=self.name)
        return self._info(self._channel.call(self._channel.stub.GetRun, request, self.client.timeout).run)

    def posteriors(
        self, tasks: Tasks | None = None, *, timeout: float = 60.0
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Returns (alpha, beta), float64, of all tasks in order, or of the given tasks (or ids) in the order given.

        All at one version; pending outcomes are counted in. timeout: seconds; ten million tasks are 160 MB.
        """
        indices, ids = indices_and_ids(() if tasks is None else tasks)
        if tasks is not None and not (indices or ids):
            return np.empty(0), np.empty(0)
        request = pb.GetPosteriorsRequest(dataset=self.dataset, run=self.name, tasks=indices, ids=ids)
        alpha = beta = np.empty(0)
        for chunk in self._channel.stream(self._channel.stub.GetPosteriors, request, timeout):
            self._saw(chunk.run_uid, chunk.version)
            if not alpha.size:
                alpha, beta = np.empty(chunk.size), np.empty(chunk.size)
            end = chunk.offset + len(chunk.alpha) // 8
            alpha[chunk.offset : end] = np.frombuffer(chunk.alpha, dtype="<f8")
            beta[chunk.offset : end] = np.frombuffer(chunk.beta, dtype="<f8")
        return alpha, beta

    def task_ids(self, *, timeout: float = 60.0) -> list[str]:
        """Returns the ids of all tasks, in order; empty where the dataset has none. timeout: seconds."""
        request = pb.GetPosteriorsRequest(dataset=self.dataset, run=self.name, with_ids=True)
        chunks = self._channel.stream(self._channel.stub.GetPosteriors, request, timeout)
        return [name for chunk in chunks for name in chunk.ids]

    def summary(self) -> Summary:
        """Returns the run at a glance: how hard the data is for the policy now, and how well the method predicts it."""
        request = pb.GetRunSummaryRequest(dataset=self.dataset, run=self.name)
        return self._summary(self._channel.call(self._channel.stub.GetRunSummary, request, self.client.timeout).summary)

    def watch(self, interval_seconds: float = 1.0) -> Generator[Summary, None, None]:
        """Yields the summary now, then whenever the version has changed, at most once in `interval_seconds`; for ever.

        Every minute it is asked anew and yields one that may be the same. Leaving the loop ends the stream.
        """
        request = pb.WatchRunRequest(dataset=self.dataset, run=self.name, interval_seconds=interval_seconds)
        timeout = max(WATCH_SECONDS, interval_seconds)
        while True:
            began = time.monotonic()
            answered = False
            try:
                for answer in self._channel.stream(self._channel.stub.WatchRun, request, timeout):
                    answered = True
                    yield self._summary(answer.summary)
            except DeadlineExceededError:
                if not answered:
                    raise
            # A server that ends streams at once must not be asked in a tight loop.
            time.sleep(max(0.0, interval_seconds - (time.monotonic() - began)))

    # ------------------------------------------------------------------------------------------------ history

    def update(self, *, request_id: str | None = None, **hyperparameters: float) -> RunInfo:
        """Changes hyperparameters for every trainer of the run; returns it as it is then."""
        request = pb.UpdateRunRequest(
            dataset=self.dataset,
            name=self.name,
            hyperparameters=hyperparameters_message(hyperparameters),
            job=self.client.job,
            request_id=request_id or new_request_id(),
        )
        return self._info(self._channel.call(self._channel.stub.UpdateRun, request, self.client.timeout).run)

    def checkpoint(self, name: str, *, version: int | None = None, ttl_seconds: float | None = None) -> Checkpoint:
        """Keeps a version (None: the newest) under a name, for `ttl_seconds` (None: for ever).

        Again with the same version it returns the same; AlreadyExistsError: the name holds another version.
        """
        if version is None:
            # Named, so that a repeat of the call means the same version.
            version = self.info().version
        request = pb.CreateCheckpointRequest(
            dataset=self.dataset,
            run=self.name,
            run_uid=self.uid,
            name=name,
            version=version,
            ttl_seconds=ttl_seconds,
        )
        answer = self._channel.call(self._channel.stub.CreateCheckpoint, request, self.client.timeout)
        return Checkpoint.of(answer.checkpoint)

    def checkpoints(self) -> list[Checkpoint]:
        """Returns the run's checkpoints, by name."""
        request = pb.ListCheckpointsRequest(dataset=self.dataset, run=self.name)
        answer = self._channel.call(self._channel.stub.ListCheckpoints, request, self.client.timeout)
        return [Checkpoint.of(checkpoint) for checkpoint in answer.checkpoints]

    def delete_checkpoint(self, name: str) -> None:
        """Deletes a checkpoint. NotFoundError: there is none of that name."""
        request = pb.DeleteCheckpointRequest(dataset=self.dataset, run=self.name, name=name)
        self._channel.call(self._channel.stub.DeleteCheckpoint, request, self.client.timeout)

    def restore(
        self,
        *,
        checkpoint: str | None = None,
        version: int | None = None,
        expected_version: int | None = None,
        request_id: str | None = None,
    ) -> int:
        """Goes back to a checkpoint or to a version of the history, for every trainer of the run; returns the new
        version.

        It is an event: the version goes up, nothing is rewritten. FailedPreconditionError (VERSION_MISMATCH): the run's
        version is not `expected_version` any more. NotFoundError (VERSION_NOT_FOUND): the version is no longer kept.
        """
        if (checkpoint is None) == (version is None):
            raise ValueError("restore: exactly one of checkpoint and version")
        request = pb.RestoreRunRequest(
            dataset=self.dataset,
            run=self.name,
            run_uid=self.uid,
            expected_version=expected_version,
            job=self.client.job,
            request_id=request_id or new_request_id(),
        )
        if checkpoint is not None:
            request.checkpoint = checkpoint
        elif version is not None:
            request.version = version
        answer = self._channel.call(self._channel.stub.RestoreRun, request, self.client.timeout)
        self._saw(answer.run_uid, answer.version)
        return answer.version

    def events(self, *, after_version: int | None = None, limit: int | None = None) -> list[Event]:
        """Returns the history, oldest first: events above `after_version` (None: from the oldest kept), at most `limit`
        (in [1, 10,000]; None: 100)."""
        request = pb.ListEventsRequest(dataset=self.dataset, run=self.name, after_version=after_version, limit=limit)
        answer = self._channel.call(self._channel.stub.ListEvents, request, self.client.timeout)
        return [Event.of(event) for event in answer.events]

    def state_dict(self, *, ttl_seconds: float | None = resume.KEEP_SECONDS) -> dict[str, Any]:
        """Returns what a trainer puts in its own checkpoint, fit for JSON; see `bots.resume`.

        ttl_seconds  keep the present version on the server for so long; None: for as long as the history has it.
        """
        return resume.state_dict(self, ttl_seconds)

    def load_state_dict(self, state: Mapping[str, Any], *, fork_as: str | None = None) -> resume.Resumed:
        """Goes back to a state where nobody else is in the way, and says what was done; see `bots.resume`."""
        return resume.load_state_dict(self, state, fork_as)

    def _info(self, message: pb.Run) -> RunInfo:
        info = RunInfo.of(message)
        self._saw(info.uid, info.version)
        return info

    def _summary(self, message: pb.RunSummary) -> Summary:
        summary = Summary.of(message)
        self._saw(summary.run.uid, summary.run.version)
        return summary

    def _saw(self, uid: str, version: int) -> None:
        if self.uid and uid != self.uid:
            raise FailedPreconditionError(
                f"run {self.dataset}/{self.name}: it was deleted, and another one created under its name",
                code="FAILED_PRECONDITION",
                reason="RUN_REPLACED",
            )
        self.uid = uid
        self._version = max(version, self._version or 0)
