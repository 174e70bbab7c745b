"""How many distinct tasks were ever reported: HyperLogLog.

2,048 registers of one byte, standard error 1.04 / sqrt(2048) = 2.3 %. Flajolet et al. 2007, "HyperLogLog: the analysis
of a near-optimal cardinality estimation algorithm"; the estimate is Ertl's, without bias at any count and with nothing
to tune (arXiv 1702.01284, algorithm 6).
"""

import math

import numpy as np
from numpy.typing import NDArray

REGISTERS = 2048

_INDEX_BITS = 11
_RANK_BITS = 64 - _INDEX_BITS  # 53: a float64 holds the rest of a hash exactly
_REST = np.uint64(2**_RANK_BITS - 1)

Registers = NDArray[np.uint8]


def zeros() -> Registers:
    """Returns the registers of no task."""
    return np.zeros(REGISTERS, np.uint8)


def add(registers: Registers, tasks: NDArray[np.int64]) -> Registers:
    """Returns `[2048]` the registers with `[n]` tasks added; the same array where nothing changes."""
    hashes = _hash(tasks)
    index = (hashes >> np.uint64(_RANK_BITS)).view(np.int64)
    bits = np.frexp((hashes & _REST).astype(np.float64))[1]  # position of the highest bit set, 0 where none is
    rank = (_RANK_BITS + 1 - bits).astype(np.uint8)
    raised = rank > registers.take(index)
    if not raised.any():
        return registers
    registers = registers.copy()
    np.maximum.at(registers, index, rank)
    return registers


def estimate(registers: Registers) -> float:
    """Returns the estimated number of distinct tasks added."""
    ranks = np.bincount(registers, minlength=_RANK_BITS + 2).tolist()
    if ranks[0] == REGISTERS:
        return 0.0
    z = REGISTERS * _tau(1 - ranks[_RANK_BITS + 1] / REGISTERS)
    for count in reversed(ranks[1 : _RANK_BITS + 1]):
        z = 0.5 * (z + count)
    z += REGISTERS * _sigma(ranks[0] / REGISTERS)
    return REGISTERS * REGISTERS / (2 * math.log(2) * z)


def _hash(tasks: NDArray[np.int64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): every bit of the index reaches every bit of the hash."""
    x = tasks.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def _sigma(x: float) -> float:
    """x + sum over k >= 1 of x^(2^k) 2^(k - 1), for x in [0, 1)."""
    total, weight = x, 1.0
    while True:
        x *= x
        before, total, weight = total, total + x * weight, 2 * weight
        if total == before:
            return total


def _tau(x: float) -> float:
    """(1 - x - sum over k >= 1 of (1 - x^(2^-k))^2 2^-k) / 3, for x in [0, 1]."""
    if x in (0.0, 1.0):
        return 0.0
    total, weight = 1 - x, 1.0
    while True:
        x, weight = math.sqrt(x), 0.5 * weight
        before, total = total, total - (1 - x) ** 2 * weight
        if total == before:
            return total / 3
