"""Reference pass rates: their scale and direction, and the signs that one of them is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bots.files.errors import BadValue
from bots.files.values import listed, numbers

# A rate beyond its bound by rounding is at its bound.
ROUNDING = 1e-6

Rates = npt.NDArray[np.float64]


def pass_rates(column: Any, scale: float, reverse: bool) -> Rates:
    """Returns the cells of a column as pass rates between 0 and 1; NaN if not measured.

    scale    what counts as 1: 100 for percentages.
    reverse  the column has difficulties: the rate is 1 minus the cell.
    BadValue: a cell is no number, or out of range.
    """
    given = numbers(column, percent=scale == 100)
    rates = given / scale
    bad = np.flatnonzero((rates < -ROUNDING) | (rates > 1 + ROUNDING))
    if bad.size:
        index = int(bad[0])
        raise BadValue(index, listed(column)[index], _rule(float(given[index]), scale))
    rates = np.clip(rates, 0.0, 1.0)
    return 1.0 - rates if reverse else rates


def warnings(references: Mapping[str, Rates], columns: Mapping[str, str], scale: float, reverse: bool) -> list[str]:
    """Returns a sentence for each sign that the pass rates are not what they are taken for, and what to do.

    references  name -> `[N]`.
    columns     name -> column of the file.
    """
    found = []
    for name, rates in references.items():
        known = rates[~np.isnan(rates)]
        who = f"{name} (column {columns[name]})"
        if not known.size:
            found.append(f"{who}: no task has a value")
            continue
        largest = 1.0 - known.min() if reverse else known.max()
        if scale > 1 and largest * scale <= 1:
            found.append(f"{who}: no value is above 1: leave out --scale if they are fractions already")
        if known.size > 1 and (known == known[0]).all():
            found.append(f"{who}: all {known.size} values are {known[0]:g}: they do not tell tasks apart")
        elif known.size > 1 and np.isin(known, (0.0, 1.0)).all():
            found.append(f"{who}: all {known.size} values are 0 or 1: use the mean of several rollouts for each task")
        if not reverse and "difficult" in columns[name].lower():
            found.append(f"{who}: the name says difficulty: use --reverse if larger values are harder")
    if "weak" in references and "strong" in references:
        weak, strong = references["weak"], references["strong"]
        both = ~(np.isnan(weak) | np.isnan(strong))
        above = int((weak[both] > strong[both]).sum())
        if 2 * above > both.sum():
            found.append(
                f"weak is above strong on {above} of {both.sum()} tasks: exchange --weak and --strong, "
                "or use --reverse if the columns are difficulties"
            )
    return found


def _rule(value: float, scale: float) -> str:
    rule = f"must be between 0 and {scale:g}"
    if value < 0:
        return f"{rule}; leave the cell empty if the task was not measured"
    if 1 < value <= 100 and scale == 1:
        return f"{rule}; use --scale 100 for percentages, --scale N for counts of N rollouts"
    return rule
