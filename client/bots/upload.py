"""A dataset as the stream of messages of CreateDataset: a header, then chunks of columns in task order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bots.v1 import task_selection_pb2 as pb

# The server takes 1,048,576 tasks and 4 MB a chunk.
MOST_TASKS = 1 << 20
MOST_BYTES = 3_500_000
# An id has at most 64 bytes; before each one go a field number and a length.
ID_BYTES = 64 + 2


# One pass rate for each task; None and NaN: not known.
Rates = npt.ArrayLike | Sequence[float | None]


@dataclass(frozen=True)
class Columns:
    """A dataset, checked as far as its shape goes; values are the server's to check.

    numbers  column name -> `[size]` little-endian array in the type that the proto asks for.
    tags     the distinct tags, in order of first appearance.
    ids      `[size]` strings, or None.
    """

    name: str
    size: int
    reference_grid: float
    numbers: Mapping[str, npt.NDArray[Any]]
    tags: tuple[str, ...]
    ids: Sequence[str] | None


def arrange(
    name: str,
    *,
    size: int | None,
    weak: Rates | None,
    strong: Rates | None,
    prior: tuple[npt.ArrayLike, npt.ArrayLike] | None,
    tags: Sequence[str] | npt.NDArray[Any] | None,
    ids: Sequence[str] | npt.NDArray[Any] | None,
    reference_grid: float,
) -> Columns:
    """Returns the columns as arrays. ValueError: they do not have one common length, or hold the wrong sort of
    thing.
    """
    alpha, beta = prior or (None, None)
    given = (
        ("weak", weak),
        ("strong", strong),
        ("prior alpha", alpha),
        ("prior beta", beta),
        ("tags", tags),
        ("ids", ids),
    )
    lengths = {column: len(values) for column, values in given if isinstance(values, Sized)}
    if size is not None:
        lengths["size"] = size
    if len(set(lengths.values())) != 1:
        raise ValueError(f"dataset {name}: {lengths or 'nothing'}, must have one length, from `size` or a column")
    size = next(iter(lengths.values()))

    numbers: dict[str, npt.NDArray[Any]] = {}
    for column, rates in (("weak", weak), ("strong", strong)):
        if rates is not None:
            numbers[column] = np.broadcast_to(np.asarray(rates, dtype="<f4"), (size,))
    if prior is not None:
        for column, value in zip(("prior_alpha", "prior_beta"), prior, strict=True):
            numbers[column] = np.broadcast_to(np.asarray(value, dtype="<f8"), (size,))
    distinct: dict[str, int] = {}
    if tags is not None:
        tags = _strings("tags", tags)
        distinct = {tag: number for number, tag in enumerate(dict.fromkeys(tags))}
        numbers["tag"] = np.fromiter((distinct[tag] for tag in tags), dtype="<u4", count=size)
    return Columns(name, size, reference_grid, numbers, tuple(distinct), None if ids is None else _strings("ids", ids))


def messages(columns: Columns, progress: Callable[[int], object] | None) -> Iterator[pb.CreateDatasetRequest]:
    """Yields the header and the chunks; `progress` is told the number of tasks handed over so far, after each chunk."""
    yield pb.CreateDatasetRequest(
        header=pb.DatasetHeader(
            name=columns.name,
            size=columns.size,
            tags=columns.tags,
            has_ids=columns.ids is not None,
            reference_grid=columns.reference_grid,
        )
    )
    step = tasks_per_chunk(columns)
    for start in range(0, columns.size, step):
        end = min(start + step, columns.size)
        yield pb.CreateDatasetRequest(
            chunk=pb.DatasetChunk(
                size=end - start,
                ids=None if columns.ids is None else columns.ids[start:end],
                **{name: column[start:end].tobytes() for name, column in columns.numbers.items()},
            )
        )
        if progress is not None:
            progress(end)


def tasks_per_chunk(columns: Columns) -> int:
    """Returns how many tasks go into a chunk, so that it stays below the limits of the server."""
    width = sum(column.itemsize for column in columns.numbers.values()) + (ID_BYTES if columns.ids is not None else 0)
    return min(MOST_TASKS, MOST_BYTES // max(width, 1))


def _strings(name: str, values: Sequence[str] | npt.NDArray[Any]) -> list[str]:
    column: list[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    for position, value in enumerate(column):
        if not isinstance(value, str):
            raise ValueError(f"{name}: {value!r} at task {position}, must be a string")
    return column
