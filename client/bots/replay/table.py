"""A table of real pass rates: a row for each task, a column for each model, from the weakest to the strongest.

The ordered models serve as checkpoints of one policy that improves: at step t of T its pass rates are those of the
model at the fraction t / (T - 1) of the order, interpolated linearly between two models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

Rates = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PassRates:
    """A table's content.

    models  `M` names, from the weakest to the strongest, M >= 2.
    rates   `[N, M]` pass rates between 0 and 1.
    labels  the columns before the models: name -> `[N]` texts.
    """

    models: tuple[str, ...]
    rates: Rates
    labels: Mapping[str, list[str]]

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self.rates)

    def tags(self, column: str | None) -> list[str] | None:
        """Returns the tasks' tags: the given column before the models, or (None) the first with two or more distinct
        texts and at least twice as many tasks; None if there is none. ValueError: there is no such column.
        """
        if column is None:
            return next((texts for texts in self.labels.values() if 2 <= len(set(texts)) <= len(texts) / 2), None)
        if column not in self.labels:
            known = ", ".join(self.labels) or "none"
            raise ValueError(f"tags: got {column!r}, must be a column before the models ({known})")
        return self.labels[column]

    def place(self, model: str) -> int:
        """Returns the index of a model: its name, or its place from the weak end (1, 2, ...) or the strong (-1, -2,
        ...). ValueError: there is none.
        """
        if model in self.models:
            return self.models.index(model)
        count = len(self.models)
        try:
            place = int(model)
        except ValueError:
            place = 0
        if not 1 <= abs(place) <= count:
            raise ValueError(f"reference: got {model!r}, must be a model of the table, 1 to {count}, or -1 to -{count}")
        return place - 1 if place > 0 else count + place


def read(path: Path) -> PassRates:
    """Returns the table in a file: CSV, Parquet or JSON lines, by its ending.

    The leading columns that are not pass rates describe the tasks: texts, and running numbers (whole numbers, some
    above 1). All columns after them are models, every value between 0 and 1.
    ValueError: the ending is unknown, a value is missing or no pass rate (the message has column and row, counted from
    1 without the header), or there are fewer than two models. OSError: the file cannot be read.
    """
    table = _columns(path)
    columns = {name: _numbers(table[name]) for name in table.column_names}
    names = list(columns)
    first = next((place for place, name in enumerate(names) if not _is_label(columns[name])), len(names))
    models = names[first:]
    if len(models) < 2:
        raise ValueError(f"{path}: got {len(models)} columns of pass rates, must be at least 2, each a model")
    if not table.num_rows:
        raise ValueError(f"{path}: got no tasks, must be at least 1")
    rates = np.empty((table.num_rows, len(models)))
    for place, name in enumerate(models):
        values = columns[name]
        if values is None:
            raise ValueError(f"{path}: column {name}: got text, must be a model's pass rates")
        wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if wrong.size:
            value = "nothing" if np.isnan(values[wrong[0]]) else f"{values[wrong[0]]:g}"
            raise ValueError(f"{path}: column {name}, row {wrong[0] + 1}: got {value}, must be between 0 and 1")
        rates[:, place] = values
    labels = {name: [str(value) for value in table[name].to_pylist()] for name in names[:first]}
    return PassRates(tuple(models), rates, labels)


def squeeze(rates: Rates, margin: float) -> Rates:
    """Returns rates with [0, 1] mapped linearly onto [margin, 1 - margin]; margin is at least 0 and below 0.5."""
    return margin + (1 - 2 * margin) * rates


def policy_at(rates: Rates, step: int, steps: int) -> Rates:
    """Returns `[N]` pass rates of the policy at a step, 0 <= step < steps, from `[N, M]` rates of the models."""
    place = step / max(steps - 1, 1) * (rates.shape[1] - 1)
    lower = min(int(place), rates.shape[1] - 2)
    part = place - lower
    return np.asarray((1 - part) * rates[:, lower] + part * rates[:, lower + 1])


def _columns(path: Path) -> Any:
    name = path.name.lower()
    try:
        if name.endswith((".csv", ".csv.gz", ".csv.bz2", ".csv.zst")):
            return pa.csv.read_csv(path)
        if name.endswith((".parquet", ".pq")):
            return pa.parquet.read_table(path)
        if name.endswith((".jsonl", ".ndjson", ".json")):
            return pa.json.read_json(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: {error}") from error
    raise ValueError(f"file: got {path}, must end in .csv, .parquet or .jsonl")


def _numbers(column: Any) -> Rates | None:
    """Returns a column as float64, NaN for a missing value; None if the column is not numbers."""
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        return None
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _is_label(values: Rates | None) -> bool:
    return values is None or bool((values == np.round(values)).all() and (values > 1).any())
