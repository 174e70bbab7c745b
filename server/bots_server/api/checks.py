"""The rules that requests are held to; each check returns what it was given or raises InvalidField.

Bad input is refused whole, with the field, the value and the rule in the message; nothing of it is stored. So every
handler checks its whole request before it asks the store for anything that changes it.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from bots_server.errors import InvalidField

MAX_BATCH = 10_000
MAX_EXCLUDED = 10_000
MAX_OUTCOMES = 100_000
MAX_POSTERIORS = 1_000_000
MAX_ROLLOUTS = 1_000_000
MAX_JOB_BYTES = 128
MAX_LEASE_SECONDS = 86_400.0

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_UID = re.compile(r"[0-9a-f]{32}")

Number = TypeVar("Number", int, float)


class Told(str):
    """A value told in words, which a message shows without quotes."""

    def __repr__(self) -> str:
        return str(self)


def name(field: str, value: str) -> str:
    """Returns a valid name of a dataset, run or checkpoint."""
    if not _NAME.fullmatch(value):
        raise InvalidField(field, value, "must match [a-z0-9][a-z0-9._-]{0,62}")
    return value


def uid(field: str, value: str) -> str:
    """Returns 32 hexadecimal digits, or the empty string where the field is not set."""
    if value and not _UID.fullmatch(value):
        raise InvalidField(field, value, "must be 32 hexadecimal digits, or empty")
    return value


def job(value: str) -> str:
    """Returns a job's name for itself."""
    if len(value.encode()) > MAX_JOB_BYTES:
        raise InvalidField("job", Told(f"{len(value.encode())} bytes"), f"must be at most {MAX_JOB_BYTES} bytes")
    return value


def request_id(value: str) -> str:
    """Returns a UUID of version 7 in text form, or the empty string where the field is not set."""
    if not value:
        return value
    rule = "must be a UUID of version 7 (RFC 9562) in its 36-character text form, or empty"
    try:
        parsed = UUID(value)
    except ValueError:
        raise InvalidField("request_id", value, rule) from None
    if parsed.version != 7 or str(parsed) != value.lower():
        raise InvalidField("request_id", value, rule)
    return value.lower()


def within(field: str, value: Number, low: Number, high: Number) -> Number:
    """Returns a number in [low, high]; NaN is in no range."""
    if not low <= value <= high:
        raise InvalidField(field, value, f"must be in [{low:,}, {high:,}]")
    return value


def positive(field: str, value: float, high: float) -> float:
    """Returns a number in (0, high]."""
    if not 0 < value <= high:
        raise InvalidField(field, value, f"must be in (0, {high:,}]")
    return value


def count(field: str, values: Sequence[object], low: int, high: int) -> int:
    """Returns the number of entries of a column, in [low, high]."""
    if not low <= len(values) <= high:
        wanted = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        raise InvalidField(field, Told(f"{len(values):,} entries"), f"must have {wanted} entries")
    return len(values)


def tasks(field: str, values: Sequence[int], size: int) -> NDArray[np.int64]:
    """Returns task indices as an array, each in [0, size)."""
    indices = np.array(values, dtype=np.int64)
    refuse_where(field, indices, (indices < 0) | (indices >= size), f"must be in [0, {size:,}), the dataset's tasks")
    return indices


def successes(values: Sequence[float], rollouts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns success counts, each finite and in [0, rollouts]."""
    column = np.array(values, dtype=np.float64)
    valid = (column >= 0) & (column <= rollouts)  # false for NaN
    refuse_where("successes", column, ~valid, "must be finite and in [0, rollouts]")
    return column


def rollouts(values: Sequence[int]) -> NDArray[np.int64]:
    """Returns rollout counts, each in [1, 1,000,000]."""
    column = np.array(values, dtype=np.int64)
    refuse_where("rollouts", column, (column < 1) | (column > MAX_ROLLOUTS), f"must be in [1, {MAX_ROLLOUTS:,}]")
    return column


def refuse_where(
    field: str, column: NDArray[np.generic], refused: NDArray[np.bool_], rule: str, offset: int = 0
) -> None:
    """Raises InvalidField for the first refused entry of a column; `offset` is the number of entries before it."""
    if refused.any():
        first = int(np.argmax(refused))
        raise InvalidField(f"{field}[{offset + first}]", column[first].item(), rule)


def require(condition: bool, field: str, value: object, rule: str) -> None:
    """Raises InvalidField unless the condition holds."""
    if not condition:
        raise InvalidField(field, value, rule)


def each(field: str, values: Sequence[str], check: Callable[[str, str], str]) -> list[str]:
    """Returns the entries of a column of strings, each checked."""
    return [check(f"{field}[{index}]", value) for index, value in enumerate(values)]
