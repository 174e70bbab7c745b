"""What the bench selects from: tasks with reference pass rates as 16 or 128 rollouts measure them, and a policy."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

References = Literal["16ths", "128ths", "none", "distinct"]

ROLLOUTS = 16
CAPABILITY = 0.4  # of the policy: it stands here between the weak and the strong model


@dataclass(frozen=True, slots=True)
class Workload:
    """N tasks.

    weak, strong: `[N]` reference pass rates; None: the tasks have none
    truth:        `[N]` pass rates of the policy
    """

    references: References
    weak: NDArray[np.float32] | None
    strong: NDArray[np.float32] | None
    truth: NDArray[np.float32]

    def __len__(self) -> int:
        """Returns N."""
        return len(self.truth)

    def outcomes(self, rng: np.random.Generator, tasks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns how many of 16 rollouts of each task succeed."""
        return rng.binomial(ROLLOUTS, self.truth.take(tasks)).astype(np.float64)


def workload(size: int, references: References) -> Workload:
    """Returns tasks as they are in such datasets: many too hard for the weak model, many solved by the strong one."""
    rng = np.random.default_rng(size)
    hard, gain = rng.beta(0.5, 1.0, size), rng.beta(1.0, 1.0, size)
    strong = 1 - (1 - hard) * gain
    truth = (hard + CAPABILITY * (strong - hard)).astype(np.float32)
    if references == "none":
        return Workload(references, None, None, truth)
    if references == "distinct":
        return Workload(references, hard.astype(np.float32), strong.astype(np.float32), truth)
    measured = 16 if references == "16ths" else 128
    low, high = rng.binomial(measured, hard), rng.binomial(measured, strong)
    return Workload(references, (low / measured).astype(np.float32), (high / measured).astype(np.float32), truth)
