"""Columns of tasks in a request, by index or by id, and tags, looked up in a dataset."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bots_server.core.task_ids import UnknownTaskId
from bots_server.datasets import Dataset
from bots_server.errors import InvalidField
from bots_server.service import rules


def task_column(
    dataset: Dataset, tasks_field: str, tasks: Sequence[int], ids_field: str, ids: Sequence[str]
) -> NDArray[np.int64]:
    """Returns the tasks that a column of indices or of ids names."""
    if ids:
        return find_ids(dataset, ids_field, ids)
    return rules.tasks(tasks_field, tasks, len(dataset.tasks))


def find_ids(dataset: Dataset, field: str, ids: Sequence[str]) -> NDArray[np.int64]:
    """Returns the tasks of ids."""
    if not ids:
        return np.empty(0, dtype=np.int64)
    if dataset.ids is None:
        raise InvalidField(field, ids[0], f"must be absent: dataset {dataset.record.name} has no ids")
    try:
        return dataset.ids.find(ids)
    except UnknownTaskId as error:
        position, name = error.args
        raise InvalidField(f"{field}[{position}]", name, "must be an id of the dataset") from None


def tag_numbers(dataset: Dataset) -> dict[str, int]:
    return {tag: number for number, tag in enumerate(dataset.tasks.tags)}


def tag_number(numbers: dict[str, int], field: str, tag: str) -> int:
    if tag not in numbers:
        raise InvalidField(field, tag, "must be a tag of the dataset")
    return numbers[tag]
