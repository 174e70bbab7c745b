"""The tasks: sums of two numbers of 1 to `longest` digits. More digits, and more carries, are harder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Digits = npt.NDArray[np.int8]
BLANK = 10  # no digit


@dataclass(frozen=True, eq=False)
class Sums:
    """`N` tasks, as digits from the last (ones) to the first, in `P` places.

    left, right  `[N, P]` the numbers to add, BLANK above their length.
    answer       `[N, P]` their sum, one place longer than they are, with a leading zero if it is shorter.
    used         `[N, P]` bool, the places of the answer.
    """

    left: Digits
    right: Digits
    answer: Digits
    used: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.left)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """`[N]` digits of the numbers to add."""
        return np.asarray(self.used.sum(axis=1) - 1)

    @property
    def texts(self) -> list[str]:
        """`N` questions, as a language model would be asked."""
        rows = zip(self.left, self.right, self.lengths, strict=True)
        return [f"What is {_text(left[:length])} + {_text(right[:length])}?" for left, right, length in rows]

    def take(self, tasks: npt.NDArray[np.int64]) -> Sums:
        """Returns the given tasks, in their order."""
        return Sums(self.left[tasks], self.right[tasks], self.answer[tasks], self.used[tasks])


def draw_sums(rng: np.random.Generator, count: int, longest: int) -> Sums:
    """Returns random sums, their lengths uniform from 1 to `longest`, both numbers equally long."""
    left, right = rng.integers(0, 10, (2, count, longest), dtype=np.int8)
    return add(left, right, rng.integers(1, longest + 1, count))


def add(left: Digits, right: Digits, lengths: npt.NDArray[np.int64]) -> Sums:
    """Returns the sums of numbers given as `[N, longest]` digits from the last to the first, `lengths` of them each."""
    count, longest = left.shape
    place = np.arange(longest + 1)
    present = place < lengths[:, None]
    left, right = (np.pad(digits, ((0, 0), (0, 1))) * present for digits in (left, right))
    answer = np.zeros((count, longest + 1), dtype=np.int8)
    carry = np.zeros(count, dtype=np.int8)
    for at in place:
        carry, answer[:, at] = np.divmod(left[:, at] + right[:, at] + carry, 10)
    blank = np.int8(BLANK)
    return Sums(np.where(present, left, blank), np.where(present, right, blank), answer, place <= lengths[:, None])


def _text(digits: Digits) -> str:
    return "".join(map(str, digits[::-1]))
