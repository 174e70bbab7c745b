"""What the bench selects from: tasks with the columns that datasets have, and a policy."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import bots
from bots.hyperparameters import Model
from bots_server.core.strata import StrataBuilder
from bots_server.core.tasks import Tasks, arrange

# References weak and strong in sixteenths, in 128ths, or of any value: interpolation. With tags, or 32 numeric features
# alone: item_response.
Kind = Literal["16ths", "128ths", "distinct", "tags", "features"]

ROLLOUTS = 16
CAPABILITY = 0.4  # of the policy: it stands here between the weak and the strong model
TAGS = tuple(f"tag-{number:02}" for number in range(16))
FEATURES = 32


@dataclass(frozen=True, slots=True)
class Workload:
    """N tasks.

    references: `[N, 2]` pass rates of the weak and the strong model; None: the tasks have none
    tag:        `[N]` number of the tag; None: no tags
    features:   `[N, 32]`; None: no features
    truth:      `[N]` pass rates of the policy
    """

    kind: Kind
    references: NDArray[np.float32] | None
    tag: NDArray[np.uint32] | None
    features: NDArray[np.float32] | None
    truth: NDArray[np.float32]

    def __len__(self) -> int:
        """Returns N."""
        return len(self.truth)

    @property
    def model(self) -> Model:
        """The evidence model of its runs."""
        return "item_response" if self.kind in ("tags", "features") else "interpolation"

    def outcomes(self, rng: np.random.Generator, tasks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns how many of 16 rollouts of each task succeed."""
        return rng.binomial(ROLLOUTS, self.truth.take(tasks)).astype(np.float64)

    def store(self, client: bots.Client, name: str) -> None:
        """Creates the dataset."""
        columns: dict[str, Any] = {"size": len(self)}
        if self.references is not None:
            columns["weak"], columns["strong"] = self.references.T
        if self.tag is not None:
            columns["tags"] = np.array(TAGS)[self.tag]
        client.create_dataset(name, features=self.features, **columns)

    def arranged(self) -> Tasks:
        """Returns the tasks as our core has them."""
        builder = StrataBuilder(0 if self.references is None else 2)
        stratum = builder.add(self.references, None, None, len(self))
        names = () if self.references is None else ("weak", "strong")
        tags = () if self.tag is None else TAGS
        return arrange(builder.strata(), stratum, self.tag, tags, reference_names=names, features=self.features)


def workload(size: int, kind: Kind) -> Workload:
    """Returns tasks as they are in such datasets: many too hard for the weak model, many solved by the strong one."""
    rng = np.random.default_rng(size)
    hard, gain = rng.beta(0.5, 1.0, size), rng.beta(1.0, 1.0, size)
    strong = 1 - (1 - hard) * gain
    truth = (hard + CAPABILITY * (strong - hard)).astype(np.float32)
    if kind == "features":
        features = rng.standard_normal((size, FEATURES), np.float32)
        features[:, 0] += 4 * truth
        return Workload(kind, None, None, features, truth)
    if kind == "distinct":
        return Workload(kind, np.stack([hard, strong], 1).astype(np.float32), None, None, truth)
    measured = 128 if kind == "128ths" else 16
    references = np.stack([rng.binomial(measured, hard), rng.binomial(measured, strong)], 1) / measured
    tag = rng.integers(0, len(TAGS), size).astype(np.uint32) if kind == "tags" else None
    return Workload(kind, references.astype(np.float32), tag, None, truth)
