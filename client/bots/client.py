"""The service, as a trainer or a person calls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy.typing as npt

from bots import upload
from bots.channel import TLS, Channel
from bots.fallback import Fallback
from bots.resources import Dataset, ForkPoint, Retention, RunInfo, hyperparameters_message
from bots.run import Run
from bots.v1 import task_selection_pb2 as pb

# Storing a dataset takes as long as it is large: what a slow network and a busy server may take for a million tasks.
UPLOAD_SECONDS_PER_MILLION_TASKS = 60.0


class Client:
    """Connects at the first call. Picklable; works after a fork; safe to share among threads; a context manager.

    target   "host:port", any other gRPC name ("dns:///name:port", "unix:/path"), or several "IP address:port" (a
             sequence, or one string with commas). Calls go round robin over all addresses behind it.
    timeout  deadline of every call in seconds, with connecting and retries; an upload and a download of all posteriors
             have their own, as they say. Where the service is away, a call waits for it as long.
    token    sent as "authorization: Bearer". It is part of a pickle, and crosses the network in clear without TLS.
    tls      how to encrypt; None: not.
    job      name of this trainer job, at most 128 bytes: in the history of runs, for leases and resuming. All processes
             of a job give the same name, and so does the job when it is started again.

    Only UNAVAILABLE is retried, and only calls whose repeat is safe: reports and changes carry a request_id. A trainer
    never waits on the service longer than its deadline, and never stops because the service is away: for the second
    half open its run with a `Fallback`.
    """

    def __init__(
        self,
        target: str | Sequence[str] = "localhost:50051",
        *,
        timeout: float = 5.0,
        token: str | None = None,
        tls: TLS | None = None,
        job: str = "",
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout: {timeout}, must be above 0")
        self.timeout = timeout
        self.job = job
        # For runs with a fallback, which share it: when to ask again where the service was away, on this machine's
        # monotonic clock; None: it was not away.
        self.away_until: float | None = None
        self._channel = Channel(target, token, tls)

    def __repr__(self) -> str:
        return f"Client({self._channel.target!r}, timeout={self.timeout}, job={self.job!r})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"away_until": None}

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; a later call is a RuntimeError."""
        self._channel.close()

    # ------------------------------------------------------------------------------------------------ datasets

    def create_dataset(
        self,
        name: str,
        *,
        size: int | None = None,
        weak: upload.Rates | None = None,
        strong: upload.Rates | None = None,
        ids: Sequence[str] | npt.NDArray[Any] | None = None,
        tags: Sequence[str] | npt.NDArray[Any] | None = None,
        prior: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        reference_grid: float = 0.0,
        progress: Callable[[int], object] | None = None,
        timeout: float | None = None,
    ) -> Dataset:
        """Stores a dataset, whole or not at all, and returns it; with equal content under the name, returns what is
        there.

        size            number of tasks; may be left out where a column tells.
        weak, strong    `[size]` pass rates of the weak and the strong reference model in [0, 1]; NaN (or None) in both
                        for a task that has none. Both or neither.
        ids             `[size]` distinct strings of 1 to 64 bytes of UTF-8.
        tags            `[size]` strings, at most 1,024 distinct.
        prior           (alpha, beta) in [0.1, 1e6], each one number or `[size]`. Default 1, 1.
        reference_grid  step in [0, 0.5] to which reference pass rates are rounded; 0 keeps them.
        progress        is told the number of tasks handed over so far, from another thread.
        timeout         seconds; default: the client's, and 60 for every million tasks.

        AlreadyExistsError: the name is taken by other content.
        """
        columns = upload.arrange(
            name,
            size=size,
            weak=weak,
            strong=strong,
            prior=prior,
            tags=tags,
            ids=ids,
            reference_grid=reference_grid,
        )
        if timeout is None:
            timeout = self.timeout + UPLOAD_SECONDS_PER_MILLION_TASKS * columns.size / 1e6
        requests = upload.messages(columns, progress)
        return Dataset.of(self._channel.upload(self._channel.stub.CreateDataset, requests, timeout).dataset)

    def get_dataset(self, name: str) -> Dataset:
        """Returns a dataset, with the number of its runs."""
        answer = self._channel.call(self._channel.stub.GetDataset, pb.GetDatasetRequest(name=name), self.timeout)
        return Dataset.of(answer.dataset, answer.runs)

    def list_datasets(self) -> list[Dataset]:
        """Returns all datasets, by name."""
        answer = self._channel.call(self._channel.stub.ListDatasets, pb.ListDatasetsRequest(), self.timeout)
        return [Dataset.of(dataset) for dataset in answer.datasets]

    def delete_dataset(self, name: str, *, delete_runs: bool = False) -> None:
        """Deletes a dataset. FailedPreconditionError (DATASET_HAS_RUNS): it has runs, and `delete_runs` does not take
        them too.
        """
        request = pb.DeleteDatasetRequest(name=name, delete_runs=delete_runs)
        self._channel.call(self._channel.stub.DeleteDataset, request, self.timeout)

    # ------------------------------------------------------------------------------------------------ runs

    def create_run(
        self,
        dataset: str,
        name: str,
        *,
        fork_from: str | ForkPoint | None = None,
        retention: Retention | None = None,
        fallback: Fallback | None = None,
        **hyperparameters: float,
    ) -> Run:
        """Starts a run and returns it; with equal content under the name, returns what is there. So every rank of a
        job, and a job that is started again, may call it.

        fork_from        start at the posterior of another run of the dataset, by name (its newest version) or
                         `ForkPoint`; hyperparameters that are not given are then the other run's.
        retention        how much of the past is kept.
        fallback         what the trainer goes on with while the service is away; see `bots.fallback`.
        hyperparameters  forgetting, implicit_weight, target, implicit_rollouts, capability_smoothing,
                         rollouts_per_update, tolerance, cooldown, uniform_fraction, temperature, greedy.

        AlreadyExistsError: the name is taken by a run of other content.
        """
        if isinstance(fork_from, str):
            fork_from = ForkPoint(fork_from)
        kept = retention or Retention()
        request = pb.CreateRunRequest(
            dataset=dataset,
            name=name,
            hyperparameters=hyperparameters_message(hyperparameters),
            retention=pb.Retention(
                snapshot_interval=kept.snapshot_interval,
                history=kept.history,
                history_stride=kept.history_stride,
                request_memory=kept.request_memory,
            ),
            fork_from=None if fork_from is None else pb.ForkPoint(run=fork_from.run, version=fork_from.version),
        )
        answer = self._channel.call(self._channel.stub.CreateRun, request, self.timeout)
        return Run(self, dataset, name, uid=answer.run.uid, fallback=fallback)

    def run(self, dataset: str, name: str, *, fallback: Fallback | None = None) -> Run:
        """Returns a run that exists. Asks nothing yet: the first call of the run finds out."""
        return Run(self, dataset, name, fallback=fallback)

    def list_runs(self, dataset: str) -> list[RunInfo]:
        """Returns the runs of a dataset, by name."""
        answer = self._channel.call(self._channel.stub.ListRuns, pb.ListRunsRequest(dataset=dataset), self.timeout)
        return [RunInfo.of(run) for run in answer.runs]

    def delete_run(self, dataset: str, name: str) -> None:
        """Deletes a run with its history and checkpoints; trainers that still use it get FailedPreconditionError."""
        request = pb.DeleteRunRequest(dataset=dataset, name=name)
        self._channel.call(self._channel.stub.DeleteRun, request, self.timeout)
