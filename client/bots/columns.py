"""The one conversion of tasks, ids, tags, rates and rewards from the values that trainers hold.

Everything array-like is taken: numpy arrays (of objects too), torch tensors (bfloat16, on a device, requires_grad),
pandas columns, nested lists, numbers of any library. The libraries are recognised by their methods and never imported.
Errors have the position of the first value that breaks the rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sized
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from bots.errors import invalid

# One value, or something that `values` takes: an array, a tensor, a column, a list.
Column: TypeAlias = Any
# Tasks: ids if the dataset has ids, else row numbers.
Tasks: TypeAlias = Any

T = TypeVar("T")

MOST_ROLLOUTS = 1_000_000


def plain(value: Any) -> Any:
    """Returns what another library holds as numpy or plain Python: an array, a list, or a scalar as it is."""
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu()
        if str(value.dtype) in ("torch.bfloat16", "torch.float16"):
            value = value.float()
        return value.numpy()
    if hasattr(value, "to_numpy"):  # a column of pandas, polars or pyarrow's ChunkedArray
        return value.to_numpy()
    if isinstance(value, np.ndarray | np.generic | str | bytes):
        return value
    if hasattr(value, "__array__"):
        return np.asarray(value)
    if isinstance(value, Iterable):
        return list(value)
    return value


def is_scalar(value: Any) -> bool:
    """Returns whether this is one value rather than a column."""
    value = plain(value)
    return np.ndim(value) == 0 if isinstance(value, np.ndarray | np.generic) else not isinstance(value, list)


def values(field: str, column: Column) -> list[Any]:
    """Returns a one-dimensional column as a list of plain Python values; one value is a column of one.

    InvalidArgumentError: the column has more than one dimension.
    """
    column = plain(column)
    if isinstance(column, np.ndarray | np.generic):
        if np.ndim(column) > 1:
            raise invalid(field, f"shape {np.shape(column)}", "must have one dimension")
        column = np.atleast_1d(column).tolist()
    if not isinstance(column, list):
        return [column]
    return [_scalar(f"{field}[{position}]", value) for position, value in enumerate(column)]


def missing(value: Any) -> bool:
    """Returns whether a value is None, NaN, NaT or pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | Decimal) and math.isnan(value)


def number(field: str, value: Any) -> float:
    """Returns a value as a float, missing ones as NaN. InvalidArgumentError: it is no number."""
    if type(value) is float:
        return value
    if missing(value):
        return math.nan
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise invalid(field, repr(value), "must be a number")
    return float(value)


def whole(field: str, value: Any) -> int:
    """Returns a value as an int. InvalidArgumentError: it is no whole number."""
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return int(value)
    try:
        if not isinstance(value, str | bytes) and not missing(value) and int(value) == value:
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise invalid(field, repr(value), "must be a whole number")


def text(field: str, value: Any) -> str:
    """Returns an id or a tag as text: a string as it is; whole numbers and UUIDs as they are written."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise invalid(field, repr(value), "must be UTF-8") from None
    if isinstance(value, bool) or missing(value) or isinstance(value, list | dict | tuple):
        raise invalid(field, repr(value), "must be a string or a whole number")
    if type(value).__name__ == "UUID":
        return str(value)
    return str(whole(field, value)) if hasattr(value, "__int__") else _no_text(field, value)


def _no_text(field: str, value: Any) -> str:
    raise invalid(field, repr(value), "must be a string or a whole number")


def texts(field: str, column: Column) -> list[str]:
    """Returns a column of ids or tags; see `text`."""
    entries = _ordered(field, column)
    if all(type(entry) is str for entry in entries):
        return entries
    return [text(f"{field}[{position}]", entry) for position, entry in enumerate(entries)]


def floats(field: str, column: Column) -> npt.NDArray[np.float64]:
    """Returns a column of numbers, missing ones as NaN."""
    given = plain(column)
    if isinstance(given, np.ndarray) and given.ndim <= 1 and given.dtype.kind in "fiub":
        return np.atleast_1d(given).astype(np.float64)
    entries = _ordered(field, given)
    return np.array([number(f"{field}[{position}]", entry) for position, entry in enumerate(entries)], np.float64)


def of_length(field: str, column: Column, length: int, convert: Callable[[str, Any], T]) -> list[T]:
    """Returns `length` values: the column's, or one value repeated. InvalidArgumentError: another length."""
    if isinstance(column, set | frozenset):
        raise invalid(field, f"a set of {len(column)}", "must have an order")
    column = plain(column)
    if is_scalar(column):
        return [convert(field, values(field, column)[0])] * length
    entries = values(field, column)
    if len(entries) != length:
        raise invalid(field, f"{len(entries)} entries", f"must be one value or one for each of the {length} tasks")
    return [convert(f"{field}[{position}]", entry) for position, entry in enumerate(entries)]


def rows_or_ids(field: str, tasks: Tasks, has_ids: bool, *, ordered: bool = True) -> tuple[list[int], list[str]]:
    """Returns (row numbers, ids), one of which is empty: ids if the dataset has ids, else row numbers.

    InvalidArgumentError: a value that can be neither.
    """
    given = plain(tasks)
    if isinstance(given, np.ndarray) and given.dtype.kind == "b":
        raise invalid(field, "a mask of booleans", "must be tasks")
    if ordered and isinstance(tasks, set | frozenset):
        raise invalid(field, f"a set of {len(tasks)}", "must have an order")
    entries = values(field, given)
    if has_ids:
        return [], [text(f"{field}[{position}]", entry) for position, entry in enumerate(entries)]
    for position, entry in enumerate(entries):
        if isinstance(entry, str):
            raise invalid(f"{field}[{position}]", repr(entry), "must be a row number: the dataset has no ids")
    return [whole(f"{field}[{position}]", entry) for position, entry in enumerate(entries)], []


def numbers_or_texts(field: str, tasks: Tasks) -> tuple[list[int], list[str]]:
    """Returns (whole numbers, texts), one of which is empty: as `rows_or_ids`, while it is not known which they are."""
    entries = _ordered(field, tasks)
    return rows_or_ids(field, entries, any(isinstance(entry, str | bytes) for entry in entries))


def outcomes(successes: Column, rollouts: Column, tasks: int) -> tuple[list[float], list[int]]:
    """Returns (successes, rollouts) of `tasks` tasks, checked as the service checks them."""
    successes = plain(successes)
    nested = isinstance(successes, list) and not all(map(is_scalar, successes))
    if nested or (isinstance(successes, np.ndarray) and successes.ndim > 1):
        raise invalid("successes", "a matrix", "must be one number for each task (report_rewards takes a matrix)")
    counts = of_length("rollouts", rollouts, tasks, whole)
    sums = of_length("successes", successes, tasks, number)
    for position, (total, count) in enumerate(zip(sums, counts, strict=True)):
        if not 1 <= count <= MOST_ROLLOUTS:
            raise invalid(f"rollouts[{position}]", count, f"must be between 1 and {MOST_ROLLOUTS}")
        if not 0 <= total <= count:
            slack = 1e-6 * count  # sums of float32 rewards are off by their rounding
            if not -slack <= total <= count + slack:
                raise invalid(
                    f"successes[{position}]", total, f"must be finite and between 0 and its rollouts ({count})"
                )
            sums[position] = min(max(total, 0.0), float(count))
    return sums, counts


def _ordered(field: str, column: Column) -> list[Any]:
    if isinstance(column, set | frozenset):
        raise invalid(field, f"a set of {len(column)}", "must have an order")
    return values(field, column)


def _scalar(field: str, value: Any) -> Any:
    """Returns an entry of a column as plain Python."""
    if type(value) in (int, float, str, bool) or value is None:
        return value
    value = plain(value)
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        return value.item()
    if isinstance(value, Sized) and not isinstance(value, str | bytes):
        raise invalid(field, f"{len(value)} values", "must be one value")
    return value
