"""Which row of a trainer's dataset is which task of the service: by id, never by position."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bots import columns, features
from bots.client import Client
from bots.columns import Column
from bots.errors import FailedPreconditionError, invalid
from bots.resources import Dataset
from bots.run import Batch, Run
from bots.selecting import MOST_EXCLUDED

logger = logging.getLogger("bots")

# The name of a column, or a function of a row.
Field: TypeAlias = str | Callable[[Any], Any]

SHOWN = 3


@dataclass(frozen=True)
class Identity:
    """How the id of a task follows from a row of the trainer's dataset.

    text  the prompt: a string or a list of chat messages of text.
    id    the id: a string or a whole number; None: a digest of the prompt.
    """

    text: Field = "prompt"
    id: Field | None = None

    def of_row(self, row: Any) -> str:
        """Returns the id of a row."""
        if self.id is not None:
            return columns.text("id", _field(row, self.id))
        return hashlib.sha256(self.prompt(row).encode()).hexdigest()[:32]

    def of_dataset(self, dataset: Any) -> list[str]:
        """Returns the id of every row of a dataset, in order."""
        if self.id is not None:
            return columns.texts("id", _column(dataset, self.id))
        return [hashlib.sha256(text.encode()).hexdigest()[:32] for text in self.prompts(dataset)]

    def prompt(self, row: Any) -> str:
        """Returns the prompt of a row as text."""
        return _text(_field(row, self.text))

    def prompts(self, dataset: Any) -> list[str]:
        """Returns the prompt of every row of a dataset as text, in order."""
        return [_text(value) for value in _column(dataset, self.text)]


def create_dataset(
    client: Client,
    name: str,
    dataset: Any,
    *,
    text: Field = "prompt",
    id: Field | None = None,  # noqa: A002 - as the column is called
    tag: Field | None = None,
    references: Mapping[str, Field | Column] | None = None,
    dimensions: int = 32,
) -> Dataset:
    """Stores a trainer's dataset as a dataset of the service, as `Client.create_dataset` does, and returns it.

    Tasks are stored in the order of their ids, so the order of the rows does not matter: every start of a job may call
    this. Rows with equal prompts are one task if the id is the digest of the prompt.

    dataset     has a length, and rows that are mappings: a list, a DataFrame, a Dataset of datasets or torch.
    text, id    as in `Identity`.
    tag         a string for each row.
    references  name of a policy -> its pass rates: a field, or one number for each row.
    dimensions  of the features made from the prompts, see `bots.features.from_text`; 0: no features.
    """
    identity = Identity(text, id)
    ids = identity.of_dataset(dataset)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    if id is None:
        order = [row for place, row in enumerate(order) if place == 0 or ids[row] != ids[order[place - 1]]]
        if len(order) < len(ids):
            logger.warning("dataset %s: %d rows have the prompt of another row", name, len(ids) - len(order))

    def arranged(field: str, given: Field | Column) -> list[Any]:
        values = list(_column(dataset, given) if isinstance(given, str) or callable(given) else given)
        if len(values) != len(ids):
            raise invalid(field, f"{len(values)} entries", f"must be one for each of the {len(ids)} rows")
        return [values[row] for row in order]

    prompts = arranged("text", identity.prompts(dataset)) if dimensions else []
    return client.create_dataset(
        name,
        ids=[ids[row] for row in order],
        tags=None if tag is None else arranged("tag", tag),
        references={policy: arranged(f"references[{policy!r}]", rates) for policy, rates in (references or {}).items()},
        features=features.from_text(prompts, dimensions) if dimensions else None,
    )


class TaskRows:
    """The rows of a trainer's dataset as the tasks of a run.

    The two may have another order. Tasks without a row (a dataset that was filtered) are never selected. A row that is
    no task is an error, as it shows that the dataset is another one; `skip_unknown=True` leaves such rows out.

    text, id      as in `Identity`, and as `create_dataset` was given them.
    select        options of `Run.select` for every selection, such as {"lease_seconds": 600}.
    missing       `[m]` row numbers in the service's dataset of the tasks without a row.

    Asks the service for the ids, unless this process has stored the dataset. FailedPreconditionError: the datasets
    differ, the message says how.
    """

    def __init__(
        self,
        run: Run,
        dataset: Any,
        *,
        text: Field = "prompt",
        id: Field | None = None,  # noqa: A002 - as the column is called
        skip_unknown: bool = False,
        select: Mapping[str, Any] | None = None,
    ) -> None:
        self.run = run
        self._select = dict(select or {})
        self.identity = Identity(text, id)
        ids = self.identity.of_dataset(dataset)
        rows = {task_id: row for row, task_id in reversed(list(enumerate(ids)))}
        if id is not None and len(rows) < len(ids):
            twice = next(ids[row] for row in range(len(ids)) if rows[ids[row]] != row)
            raise invalid("id", repr(twice), "must be the id of one row")
        known = run.session.known(run.dataset)
        tasks = (
            run.task_ids() if known is None or known.ids is None else [known.ids[task] for task in range(known.size)]
        )
        self._row = np.array([rows.get(task_id, -1) for task_id in tasks], np.int64)
        self.missing: npt.NDArray[np.int64] = np.flatnonzero(self._row < 0)
        self._check(ids, rows.keys() - set(tasks), skip_unknown)

    def select(self, batch_size: int, **options: Any) -> Batch:
        """Returns a batch of tasks that have a row; the options are those of `Run.select` but for `exclude`."""
        return self.run.select(batch_size, exclude=self.missing, rows=True, **{**self._select, **options})

    def rows_of(self, batch: Batch) -> list[int]:
        """Returns the row numbers of a batch's tasks in the trainer's dataset."""
        return [int(row) for row in self._row[batch.tasks]]

    def _check(self, ids: list[str], unknown: set[str], skip_unknown: bool) -> None:
        where = f"dataset {self.run.dataset}"
        tasks, without = len(self._row), len(self.missing)
        if not tasks:
            raise _differs(f"{where}: its tasks have no ids; make it with bots.trainers.create_dataset")
        counts = f"{len(ids)} rows, {tasks} tasks, {tasks - without} in both"
        if without == tasks:
            raise _differs(f"{where}: no row is one of its tasks ({counts}); text and id must be as it was made with")
        if unknown and not skip_unknown:
            first = [task_id for task_id in dict.fromkeys(ids) if task_id in unknown][:SHOWN]
            raise _differs(
                f"{where}: {len(unknown)} rows are not its tasks ({counts}), such as {', '.join(map(repr, first))}; "
                "make another dataset of them, or skip_unknown=True never selects them"
            )
        if without > MOST_EXCLUDED:
            raise _differs(
                f"{where}: {without} tasks have no row ({counts}), must be at most {MOST_EXCLUDED}; make another "
                "dataset of the rows"
            )
        if without or unknown:
            logger.warning(
                "%s: %d tasks have no row and %d rows are no task, they are never selected (%s)",
                where,
                without,
                len(unknown),
                counts,
            )


def _differs(message: str) -> FailedPreconditionError:
    return FailedPreconditionError(message, code="FAILED_PRECONDITION", reason="DATASET_DIFFERS")


def _field(row: Any, field: Field) -> Any:
    return field(row) if callable(field) else row[field]


def _column(dataset: Any, field: Field) -> Iterable[Any]:
    named = getattr(dataset, "column_names", None)  # of datasets.Dataset
    if named is None:
        named = getattr(dataset, "columns", None)  # of a DataFrame
    if isinstance(field, str) and named is not None:
        if field not in list(named):
            raise invalid("field", repr(field), f"must be one of {', '.join(map(str, named))}")
        return columns.values(field, dataset[field]) if not hasattr(dataset, "column_names") else dataset[field]
    if hasattr(dataset, "iloc"):
        return [_field(dataset.iloc[row], field) for row in range(len(dataset))]
    return [_field(dataset[row], field) for row in range(len(dataset))]


def _text(prompt: Any) -> str:
    """Returns a prompt as text: a string as it is, of chat messages a line each with its role."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Mapping):
        if "content" in prompt:
            return f"{prompt.get('role', '')}: {_text(prompt['content'])}"
        if isinstance(prompt.get("text"), str):
            return str(prompt["text"])
    elif isinstance(prompt, Iterable):
        return "\n".join(map(_text, prompt))
    shown = repr(prompt)[:40]
    raise invalid("text", shown, "must be a string or chat messages of text; text= may be a function of the row")
