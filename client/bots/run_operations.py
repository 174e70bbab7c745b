"""Operations on a run besides its loop: looking at it and changing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bots.calls import Steps
from bots.columns import Tasks
from bots.handle import RunHandle, rows_or_ids
from bots.hyperparameters import Hyperparameters, HyperparameterValues, hyperparameters_message
from bots.request_ids import new_request_id
from bots.resources import RunInfo
from bots.session_core import DOWNLOAD_SECONDS
from bots.summary import Summary
from bots.v1 import task_selection_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack

WATCH_SECONDS = 60.0

Floats = npt.NDArray[np.float64]


def info(run: RunHandle) -> Steps[RunInfo]:
    """Returns the run's current hyperparameters and version."""
    return _info(run, (yield from run.session.ask("GetRun", pb.GetRunRequest(run=run.ref()))).run)


def posteriors(
    run: RunHandle, tasks: Tasks | None = None, *, rows: bool = False, timeout: float = DOWNLOAD_SECONDS
) -> Steps[tuple[Floats, Floats]]:
    """Returns (alpha, beta), float64, of all tasks in order, or of the given tasks in the order given, at one version.

    tasks    ids if the dataset has ids, else row numbers. Pending outcomes are counted in.
    rows     `tasks` are row numbers although the dataset has ids.
    timeout  seconds; ten million tasks are 160 MB.
    """
    indices: list[int] = []
    ids: list[str] = []
    if tasks is not None:
        indices, ids = yield from rows_or_ids(run, "tasks", tasks, rows)
        if not indices and not ids:
            return np.empty(0), np.empty(0)
    found: dict[str, Floats] = {"alpha": np.empty(0), "beta": np.empty(0)}

    def take(chunk: pb.GetPosteriorsResponse) -> None:
        run.saw(chunk.run_uid, chunk.version)
        for name, column in found.items():
            if len(column) != chunk.size:
                found[name] = column = np.empty(chunk.size)
            values = getattr(chunk, name)
            column[chunk.offset : chunk.offset + len(values)] = values

    request = pb.GetPosteriorsRequest(run=run.ref(), tasks=indices, ids=ids)
    yield from run.session.ask("GetPosteriors", request, timeout=timeout, each=take)
    return found["alpha"], found["beta"]


def table(run: RunHandle, *, timeout: float = DOWNLOAD_SECONDS) -> Steps[dict[str, Any]]:
    """Returns columns of all tasks at one version: id and tag (if the dataset has them), alpha, beta.

    timeout  seconds.
    """
    about = (yield from run.session.ask("GetDataset", pb.GetDatasetRequest(name=run.dataset))).dataset
    names = [count.tag for count in about.tags]
    columns: dict[str, list[Any]] = {"id": [], "tag": [], "alpha": [], "beta": []}

    def take(chunk: pb.GetPosteriorsResponse) -> None:
        run.saw(chunk.run_uid, chunk.version)
        columns["id"].extend(chunk.ids)
        columns["tag"].extend(names[tag] for tag in chunk.tag)
        columns["alpha"].append(np.array(chunk.alpha))
        columns["beta"].append(np.array(chunk.beta))

    request = pb.GetPosteriorsRequest(run=run.ref(), with_ids=about.has_ids, with_tags=bool(names))
    yield from run.session.ask("GetPosteriors", request, timeout=timeout, each=take)
    found: dict[str, Any] = {name: columns[name] for name in ("id", "tag") if columns[name]}
    return found | {name: np.concatenate([np.empty(0), *columns[name]]) for name in ("alpha", "beta")}


def task_ids(run: RunHandle, *, timeout: float = DOWNLOAD_SECONDS) -> Steps[list[str]]:
    """Returns the ids of all tasks, in order; empty if the dataset has none. timeout: seconds."""
    ids: list[str] = []
    request = pb.GetPosteriorsRequest(run=run.ref(), with_ids=True)
    yield from run.session.ask("GetPosteriors", request, timeout=timeout, each=lambda chunk: ids.extend(chunk.ids))
    return ids


def summary(run: RunHandle) -> Steps[Summary]:
    """Returns how hard the tasks are for the policy now, and how well the model predicts it."""
    request = pb.GetRunSummaryRequest(run=run.ref())
    return read_summary(run, (yield from run.session.ask("GetRunSummary", request)).summary)


def read_summary(run: RunHandle, message: pb.RunSummary) -> Summary:
    """Returns what the message says, and notes the version."""
    found = Summary.of(message)
    run.saw(found.run.uid, found.run.version)
    return found


def update(
    run: RunHandle,
    hyperparameters: Hyperparameters | None = None,
    *,
    request_id: str | None = None,
    **keywords: Unpack[HyperparameterValues],
) -> Steps[RunInfo]:
    """Changes hyperparameters, given as keywords or as `Hyperparameters`, for every trainer of the run."""
    request = pb.UpdateRunRequest(
        run=run.ref(),
        hyperparameters=hyperparameters_message(hyperparameters, keywords),
        job=run.session.job,
        request_id=request_id or new_request_id(),
    )
    return _info(run, (yield from run.session.ask("UpdateRun", request)).run)


def retire(
    run: RunHandle, tasks: Tasks, *, reason: str = "", rows: bool = False, request_id: str | None = None
) -> Steps[int]:
    """Takes tasks out of every selection, because of a broken verifier or a duplicate; returns the number of tasks that
    are retired now.

    tasks   ids if the dataset has ids, else row numbers; 1 to 100000.
    reason  at most 256 bytes, for the history.
    rows    `tasks` are row numbers although the dataset has ids.
    """
    return (yield from _retire(run, tasks, reason, rows, request_id, undo=False))


def unretire(
    run: RunHandle, tasks: Tasks, *, reason: str = "", rows: bool = False, request_id: str | None = None
) -> Steps[int]:
    """Takes retired tasks back; the counterpart of `retire`."""
    return (yield from _retire(run, tasks, reason, rows, request_id, undo=True))


def _retire(run: RunHandle, tasks: Tasks, reason: str, rows: bool, request_id: str | None, *, undo: bool) -> Steps[int]:
    indices, ids = yield from rows_or_ids(run, "tasks", tasks, rows, ordered=False)
    request = pb.RetireTasksRequest(
        run=run.ref(),
        tasks=indices,
        ids=ids,
        undo=undo,
        reason=reason,
        job=run.session.job,
        request_id=request_id or new_request_id(),
    )
    answer = yield from run.session.ask("RetireTasks", request)
    retired: int = answer.retired_tasks
    return retired


def _info(run: RunHandle, message: pb.Run) -> RunInfo:
    found = RunInfo.of(message)
    run.saw(found.uid, found.version)
    return found


def watch_request(run: RunHandle, interval_seconds: float) -> tuple[pb.WatchRunRequest, float]:
    """Returns the request of a watch and its timeout."""
    return pb.WatchRunRequest(run=run.ref(), interval_seconds=interval_seconds), max(WATCH_SECONDS, interval_seconds)
