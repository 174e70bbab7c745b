"""A run of the item_response model: the fold of any history is the dense form of model, coverage and open updates."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given
from numpy.typing import NDArray

from tests.core import item_response_oracle, oracle
from tests.core.test_posterior import assert_equal, begun, play, play_oracle
from tests.strategies import Columns, Step, given_values, runs

Floats = NDArray[np.float64]


@dataclass
class Dense(oracle.Dense):
    """The state of a run over N tasks: alpha and beta are those of `response`."""

    response: item_response_oracle.Oracle = field(kw_only=True)

    def seen(self) -> tuple[Floats, Floats]:
        """Returns `[N]` alpha and beta, pending outcomes counted in."""
        self.alpha, self.beta = self.response.alpha_beta()
        return super().seen()

    def update(self, given: Any) -> None:
        """Applies the pending outcomes."""
        k, n = self._columns()
        tasks = np.flatnonzero(n > 0).tolist()
        self.response.drift, self.response.rho = given["drift"], given["residual_memory"]
        self.response.update(tasks, k[tasks].tolist(), n[tasks].tolist())
        self.updates += 1
        self.pending = {}


def begin_oracle(columns: Columns, begin: dict[str, Any]) -> oracle.Oracle:
    """Returns a run without evidence. Priors other than Beta(1, 1) are one more reference."""
    references = [rates.astype(np.float64) for rates in columns.references.values()]
    alpha, beta = columns.each()["prior_alpha"], columns.each()["prior_beta"]
    if ((alpha != 1) | (beta != 1)).any():
        references.append(np.where((alpha == 1) & (beta == 1), np.nan, alpha / (alpha + beta)))
    size = columns.size
    response = item_response_oracle.Oracle(
        np.stack(references, 1) if references else np.empty((size, 0)),
        () if columns.tag is None else columns.tag.tolist(),
        len(columns.tags),
        np.empty((size, 0), np.float32) if columns.features is None else columns.features,
    )
    nothing = np.full(size, np.nan)
    return oracle.Oracle(
        Dense(nothing, nothing, alpha, beta, np.ones(size), np.ones(size), response=response), given_values(begin)
    )


@given(runs(model="item_response"))
def test_equals_the_dense_form_for_any_history(run: tuple[Columns, dict[str, Any], list[Step]]) -> None:
    """Guarantee 3: whatever the columns, parts of selections, pending sums, changes and restores, to within 1e-4."""
    columns, begin, history = run
    tasks = columns.arranged()
    _, states = play(tasks, begun(tasks, begin, "item_response"), history)
    for state, expected in zip(states, play_oracle(begin_oracle(columns, begin), history), strict=True):
        assert_equal(state, tasks, expected.now(), rtol=0, atol=1e-4)
