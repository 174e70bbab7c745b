"""The loop of a trainer, blocking: select a batch, report its outcomes; and everything else about a run."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import Any

from bots import client_operations, history_operations, leasing, reporting, reporting_rewards, run_operations, selecting
from bots.batch import BatchData
from bots.calls import Call, Steps, T, blocking, iterated
from bots.errors import DeadlineExceededError
from bots.handle import RunHandle
from bots.resume import Resumed
from bots.session import Session
from bots.summary import Summary


class Batch(BatchData):
    __doc__ = BatchData.__doc__

    def drive(self, steps: Steps[T], /) -> T:
        """Returns the result of an operation on the run."""
        session = self.run.session
        assert isinstance(session, Session)
        return session.drive(steps)

    report = blocking(reporting.report_batch)
    report_rewards = blocking(reporting_rewards.report_rewards)
    release = blocking(leasing.release_batch)


class Run(RunHandle):
    """The posterior of one policy over one dataset. Made by `Client.run` and `Client.create_run`.

    The first answer of the service fixes which run this is (`uid`): if the run is deleted and another one created under
    its name, calls fail with FailedPreconditionError (RUN_REPLACED). Every call raises the errors of `bots.errors`
    within the client's deadline. Picklable (reports that wait stay behind); safe to share among threads.
    """

    session: Session

    def drive(self, steps: Steps[T], /) -> T:
        """Returns the result of an operation."""
        return self.session.drive(steps)

    select = blocking(selecting.select, Batch)
    report = blocking(reporting.report)
    release = blocking(leasing.release)
    flush = blocking(client_operations.flush_run)

    info = blocking(run_operations.info)
    posteriors = blocking(run_operations.posteriors)
    task_ids = blocking(run_operations.task_ids)
    table = blocking(run_operations.table)
    summary = blocking(run_operations.summary)

    update = blocking(run_operations.update)
    retire = blocking(run_operations.retire)
    unretire = blocking(run_operations.unretire)
    checkpoint = blocking(history_operations.checkpoint)
    checkpoints = iterated(history_operations.checkpoints)
    delete_checkpoint = blocking(history_operations.delete_checkpoint)
    restore = blocking(history_operations.restore)
    undo = blocking(history_operations.undo)
    events = iterated(history_operations.events)
    leases = iterated(leasing.leases)
    end_leases = blocking(leasing.end_leases)
    state_dict = blocking(history_operations.state_dict)

    def load_state_dict(self, state: Mapping[str, Any], *, fork_as: str | None = None) -> Resumed[Run]:
        """Goes back to a state if no other job is in the way, and says what was done; see `bots.resume`.

        fork_as  if another job is in the way: start a run of this name at the state, which is `Resumed.run`.
        """
        return self.drive(history_operations.load_state_dict(self, state, fork_as=fork_as))

    def watch(self, interval_seconds: float = 1.0) -> Generator[Summary, None, None]:
        """Yields the summary now and after each change of the version, at most once in `interval_seconds`, without end.

        Leaving the loop ends the stream.
        """
        shown: tuple[str, int] | None = None
        while True:
            request, timeout = run_operations.watch_request(self, interval_seconds)
            began, answered = time.monotonic(), False
            try:
                for answer in self.session.channel.stream(Call("WatchRun", request, timeout)):
                    answered = True
                    summary = run_operations.read_summary(self, answer.summary)
                    if shown != (summary.run.uid, summary.run.version):
                        shown = summary.run.uid, summary.run.version
                        yield summary
            except DeadlineExceededError:
                if not answered:
                    raise
            # A server that ends streams at once must not be asked in a tight loop.
            time.sleep(max(0.0, interval_seconds - (time.monotonic() - began)))
