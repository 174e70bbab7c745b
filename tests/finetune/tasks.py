"""The tasks: five families of short questions at six levels, each with one right answer of at most 7 characters.

    12+34=            46              add, numbers of DIGITS[level]
    5-78=             -73             subtract, likewise
    sort 52413=       12345           sort, `level` + 1 digits
    reverse abcd=     dcba            reverse, `level` + 1 letters
    next abcz=        bcda            next letter of each, `level` + 1 letters

A question is a sequence of characters; the family is the tag of the task, the level is known to the report alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVELS = 6
# Of the two numbers of a sum or a difference, by level.
DIGITS = {1: (1, 1), 2: (2, 1), 3: (2, 2), 4: (3, 2), 5: (3, 3), 6: (4, 4)}
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz+-= "
PAD, END = 0, 1
SIZE = len(ALPHABET) + 2  # of the vocabulary
LONGEST_ANSWER = 8  # characters and the END
_CODE = {character: place + 2 for place, character in enumerate(ALPHABET)}

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """A question, its right answer, the family, and the level from 1 to LEVELS."""

    question: str
    answer: str
    family: str
    level: int

    def score(self, answer: str) -> float:
        """Returns the verifiable reward of an answer: 1 if it is the right one, else 0."""
        return float(answer == self.answer)


def _number(rng: np.random.Generator, digits: int) -> int:
    return int(rng.integers(10 ** (digits - 1) if digits > 1 else 0, 10**digits))


def _letters(rng: np.random.Generator, count: int) -> str:
    return "".join(chr(ord("a") + letter) for letter in rng.integers(0, 26, count))


def _add(rng: np.random.Generator, level: int) -> tuple[str, str]:
    left, right = (_number(rng, digits) for digits in DIGITS[level])
    return f"{left}+{right}", str(left + right)


def _subtract(rng: np.random.Generator, level: int) -> tuple[str, str]:
    left, right = (_number(rng, digits) for digits in DIGITS[level])
    return f"{left}-{right}", str(left - right)


def _sort(rng: np.random.Generator, level: int) -> tuple[str, str]:
    digits = "".join(map(str, rng.integers(0, 10, level + 1)))
    return f"sort {digits}", "".join(sorted(digits))


def _reverse(rng: np.random.Generator, level: int) -> tuple[str, str]:
    word = _letters(rng, level + 1)
    return f"reverse {word}", word[::-1]


def _next(rng: np.random.Generator, level: int) -> tuple[str, str]:
    word = _letters(rng, level + 1)
    return f"next {word}", "".join(chr(ord("a") + (ord(letter) - ord("a") + 1) % 26) for letter in word)


FAMILIES: Mapping[str, Callable[[np.random.Generator, int], tuple[str, str]]] = {
    "add": _add,
    "subtract": _subtract,
    "sort": _sort,
    "reverse": _reverse,
    "next": _next,
}


def draw_task(rng: np.random.Generator, family: str, level: int) -> Task:
    """Returns a random task of a family and a level."""
    question, answer = FAMILIES[family](rng, level)
    return Task(f"{question}=", answer, family, level)


def draw_distinct(rng: np.random.Generator, count: int) -> list[Task]:
    """Returns tasks with distinct questions in random order, as equally many of each family and level as `count`
    allows. At most 80 of each family and level.
    """
    found: dict[str, Task] = {}
    cells = [(family, level) for level in range(1, LEVELS + 1) for family in FAMILIES]
    for place, (family, level) in enumerate(cells):
        wanted = len(found) + (count - len(found)) // (len(cells) - place)
        while len(found) < wanted:
            task = draw_task(rng, family, level)
            found[task.question] = task
    tasks = list(found.values())
    return [tasks[place] for place in rng.permutation(count)]


def draw_easy(rng: np.random.Generator, count: int) -> list[Task]:
    """Returns random tasks for pretraining: families equally often, levels geometrically, so that few are hard."""
    families = list(FAMILIES)
    levels = np.minimum(rng.geometric(EASY, count), LEVELS)
    chosen = rng.integers(0, len(families), count)
    return [draw_task(rng, families[family], int(level)) for family, level in zip(chosen, levels, strict=True)]


EASY = 0.42  # share of the lowest level among the tasks of pretraining


def encode(texts: Sequence[str], length: int, *, left: bool) -> Ints:
    """Returns `[N, length]` character codes, with PAD before the text if `left`, else END after it and PAD behind."""
    codes = np.full((len(texts), length), PAD, dtype=np.int64)
    for row, text in enumerate(texts):
        symbols = [_CODE[character] for character in text] + ([] if left else [END])
        if left:
            codes[row, length - len(symbols) :] = symbols
        else:
            codes[row, : len(symbols)] = symbols
    return codes


def decode(codes: Ints) -> list[str]:
    """Returns the texts of `[N, length]` codes, each up to its first END; a text without an END is cut off and ends
    with a mark that no right answer has.
    """
    texts = []
    for row in codes.tolist():
        ended = END in row
        symbols = row[: row.index(END)] if ended else row
        texts.append("".join("?" if code < 2 else ALPHABET[code - 2] for code in symbols) + ("" if ended else "?"))
    return texts
