"""Operations on datasets, on the list of runs, and on the server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bots import delivery, upload
from bots.calls import PAGE, Steps
from bots.columns import Column
from bots.errors import TemporaryError
from bots.handle import RunHandle
from bots.hyperparameters import Hyperparameters, HyperparameterValues, Model, hyperparameters_message
from bots.records import record
from bots.resources import Dataset, ForkPoint, RunInfo, ServerInfo
from bots.session_core import SessionCore
from bots.v1 import task_selection_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger("bots")

MODELS: Mapping[str | None, pb.EvidenceModel.ValueType] = {
    None: pb.EVIDENCE_MODEL_UNSPECIFIED,
    "interpolation": pb.EVIDENCE_MODEL_INTERPOLATION,
    "item_response": pb.EVIDENCE_MODEL_ITEM_RESPONSE,
}


class ClientCore:
    """What a blocking and an asyncio client share."""

    session: SessionCore

    def handle(self, dataset: str, name: str, **known: Any) -> Any:
        """Returns the run object of a name."""
        raise NotImplementedError


def create_dataset(
    client: ClientCore,
    name: str,
    *,
    size: int | None = None,
    ids: Column | None = None,
    tags: Column | None = None,
    references: Mapping[str, Column] | None = None,
    weak: Column | None = None,
    strong: Column | None = None,
    features: Column | Mapping[str, Column] | None = None,
    prior: tuple[Column, Column] | None = None,
    reference_grid: float = 0.0,
    progress: Callable[[int], object] | None = None,
    timeout: float | None = None,
) -> Steps[Dataset]:
    """Stores a dataset, whole or not at all, and returns it; if the name has equal content, returns what is there.

    Every rank may call it: only the first uploads. If the service is away, the dataset is stored when it is back.

    size            number of tasks; may be left out if there is a column.
    ids             `[size]` distinct strings or whole numbers, as text 1 to 256 bytes.
    tags            `[size]` strings, at most 1024 distinct.
    references      name of a policy -> `[size]` its pass rates, between 0 and 1; None or NaN: not known.
    weak, strong    the same as references={"weak": ..., "strong": ...}.
    features        column name -> `[size]` numbers, or an array `[size, features]`; NaN: not known.
    prior           (alpha, beta), between 0.1 and 1e6, each one number or `[size]`. Default 1, 1.
    reference_grid  step between 0 and 0.5 to which pass rates are rounded; 0 keeps them.
    progress        called with the number of tasks handed over so far, from another thread.
    timeout         seconds; default: the client's, and 60 for every million tasks.

    AlreadyExistsError: the name is taken by other content.
    """
    columns = upload.arrange(
        name,
        size=size,
        ids=ids,
        tags=tags,
        references=references,
        weak=weak,
        strong=strong,
        features=features,
        prior=prior,
        reference_grid=reference_grid,
    )
    session = client.session
    if not session.strict:
        session.learn_columns(columns)
    failure: TemporaryError | None = None
    if session.strict or session.availability.reachable:
        try:
            answer = yield from delivery.store(session, columns, progress, timeout)
            return Dataset.of(answer.dataset, created=answer.created)
        except TemporaryError as error:
            if session.strict or session.availability.reachable:
                raise
            failure = error
    logger.warning("dataset %s is stored when the service is back (%s)", name, failure or "the service is away")
    delivery.store_later(session, columns)
    return Dataset(
        name=name,
        size=columns.size,
        fingerprint=upload.fingerprint(columns).hex(),
        reference_grid=columns.reference_grid,
        tags=dict.fromkeys(columns.tags, 0) | dict(session.known(name).tags),  # type: ignore[union-attr]
        has_ids=columns.ids is not None,
        references={name: int((column == column).sum()) for name, column in columns.references.items()},
        features=tuple(columns.features),
    )


def get_dataset(client: ClientCore, name: str) -> Steps[Dataset]:
    """Returns a dataset, with the number of its runs."""
    answer = yield from client.session.ask("GetDataset", pb.GetDatasetRequest(name=name))
    return Dataset.of(answer.dataset, runs=answer.runs)


def list_datasets(client: ClientCore, page_token: str) -> Steps[tuple[list[Dataset], str]]:
    """Iterates over all datasets, by name."""
    request = pb.ListDatasetsRequest(page_size=PAGE, page_token=page_token)
    page = yield from client.session.ask("ListDatasets", request)
    return [Dataset.of(dataset) for dataset in page.datasets], page.next_page_token


def delete_dataset(client: ClientCore, name: str, *, delete_runs: bool = False) -> Steps[None]:
    """Deletes a dataset. FailedPreconditionError (DATASET_HAS_RUNS): it has runs, and `delete_runs` is False."""
    yield from client.session.ask("DeleteDataset", pb.DeleteDatasetRequest(name=name, delete_runs=delete_runs))


def create_run(
    client: ClientCore,
    dataset: str,
    name: str,
    *,
    model: Model | None = None,
    policy: str = "",
    fork_from: str | ForkPoint | None = None,
    hyperparameters: Hyperparameters | None = None,
    **keywords: Unpack[HyperparameterValues],
) -> Steps[Any]:
    """Starts a run and returns it; if the name's run was asked for equally, returns that (`Run.created` is False). So
    every rank of a job, and a job that is started again, may call it.

    If the service is away, the run is created when it is back, before its reports are delivered.

    model      None: interpolation if the references weak and strong are all that the dataset has, else item_response.
    policy     label of the policy that trains, at most 128 bytes; a later call with another label is refused.
    fork_from  start at the posterior of another run: of this dataset by name (its newest version), or a `ForkPoint`.
    hyperparameters  as `Hyperparameters`, or each as a keyword.

    AlreadyExistsError: the name is taken by a run that was asked for differently.
    """
    if model not in MODELS:
        raise TypeError(f"model: got {model!r}, must be one of {', '.join(str(known) for known in MODELS)}")
    session = client.session
    request = pb.CreateRunRequest(
        dataset=dataset,
        name=name,
        model=MODELS[model],
        hyperparameters=hyperparameters_message(hyperparameters, keywords),
        fork_from=_fork_point(fork_from),
        policy=policy,
    )
    failure: TemporaryError | None = None
    if session.strict or session.availability.reachable:
        try:
            answer = yield from session.ask("CreateRun", request)
        except TemporaryError as error:
            if session.strict or session.availability.reachable:
                raise
            failure = error
        else:
            made = answer.run
            if not answer.created and made.version:
                logger.info("run %s/%s is joined at version %d", dataset, name, made.version)
            return client.handle(dataset, name, uid=made.ref.uid, created=answer.created, version=made.version)
    logger.warning(
        "run %s/%s is created when the service is back (%s)", dataset, name, failure or "the service is away"
    )
    session.outbox.add((dataset, name), "create", request.SerializeToString())
    session.wake()
    return client.handle(dataset, name)


def list_runs(client: ClientCore, page_token: str, dataset: str) -> Steps[tuple[list[RunInfo], str]]:
    """Iterates over the runs of a dataset, by name."""
    request = pb.ListRunsRequest(dataset=dataset, page_size=PAGE, page_token=page_token)
    page = yield from client.session.ask("ListRuns", request)
    return [RunInfo.of(run) for run in page.runs], page.next_page_token


def delete_run(client: ClientCore, dataset: str, name: str, *, uid: str = "") -> Steps[None]:
    """Deletes a run with its history and checkpoints; trainers that still use it get FailedPreconditionError.

    uid  delete it only if it is this one.
    """
    ref = pb.RunRef(dataset=dataset, name=name, uid=uid)
    yield from client.session.ask("DeleteRun", pb.DeleteRunRequest(run=ref))


def get_server(client: ClientCore) -> Steps[ServerInfo]:
    """Returns the version of the server, its clock, its durability, what its Redis puts at risk, and the quotas."""
    answer = yield from client.session.ask("GetServer", pb.GetServerRequest())
    quotas = {quota.setting: (quota.use, quota.limit) for quota in answer.quotas}
    return record(ServerInfo, answer, quotas=quotas)


def flush(client: ClientCore, timeout: float | None = None) -> Steps[None]:
    """Delivers the reports that wait, of all runs of this client.

    DeadlineExceededError: some are left when `timeout` seconds (None: the client's) are over.
    """
    yield from delivery.flush(client.session, timeout)


def flush_run(run: RunHandle, timeout: float | None = None) -> Steps[None]:
    """Delivers the reports that wait, of all runs of the client.

    DeadlineExceededError: some are left when `timeout` seconds (None: the client's) are over.
    """
    yield from delivery.flush(run.session, timeout)


def _fork_point(fork: str | ForkPoint | None) -> pb.ForkPoint | None:
    if fork is None:
        return None
    fork = ForkPoint(run=fork) if isinstance(fork, str) else fork
    return pb.ForkPoint(dataset=fork.dataset or "", run=fork.run, version=fork.version)
