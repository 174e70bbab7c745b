"""Prefetch: after a report the next selection is drawn before it is asked for; used once, of the newest posterior."""

import numpy as np
import pytest
import scipy.stats
from prometheus_client import CollectorRegistry

from bots_server.core.posterior import Posterior, alpha_beta
from bots_server.core.tasks import Tasks
from bots_server.runs.dataset import DatasetCache
from bots_server.runs.memory import Memory
from bots_server.runs.replica import PAUSE, Replica
from bots_server.runs.selection import Drawn, SelectionSpec, draw
from bots_server.telemetry.metrics import Metrics
from tests.api.service import Service

SPEC, OTHER = SelectionSpec(batch_size=1), SelectionSpec(batch_size=2)


@pytest.fixture
def replica(letters: Service) -> Replica:
    """A replica of a run that has evidence."""
    letters.run("letters", "policy").report([0, 1, 2], [4, 2, 0])
    record = letters.store.runs.get(letters.store.datasets.get("letters"), "policy")
    return Replica(letters.store, Metrics(CollectorRegistry()), DatasetCache(letters.store, Memory(2**30)), record)


def draws(monkeypatch: pytest.MonkeyPatch) -> list[Posterior]:
    """Returns a list to which every draw adds its posterior."""
    made: list[Posterior] = []

    def counted(rng: np.random.Generator, posterior: Posterior, tasks: Tasks, spec: SelectionSpec) -> Drawn:
        drawn = draw(rng, posterior, tasks, spec)
        made.append(posterior)
        return drawn

    monkeypatch.setattr("bots_server.runs.replica.draw", counted)
    return made


def test_prefetch_is_used_once(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the spec of the selection before, at the posterior that the next selection finds."""
    made, posterior = draws(monkeypatch), replica.view().posterior
    replica.prefetch()
    assert not made  # no selection was asked for yet
    replica.drawn(posterior, SPEC)
    replica.prefetch()
    replica.prefetch()
    assert made == [posterior] * 2  # one draw ahead for one selection
    replica.drawn(posterior, SPEC)
    assert len(made) == 2
    replica.drawn(posterior, SPEC)
    assert len(made) == 3


@pytest.mark.parametrize("changed", ["posterior", "spec"])
def test_prefetch_of_another_posterior_or_spec_is_dropped(
    letters: Service, replica: Replica, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """And the next few selections are not prefetched: many jobs share the run."""
    made, before = draws(monkeypatch), replica.view().posterior
    replica.drawn(before, SPEC)
    replica.prefetch()
    assert len(made) == 2
    letters.run("letters", "policy").report([3], [1])
    after = replica.view().posterior
    replica.drawn(after if changed == "posterior" else before, SPEC if changed == "posterior" else OTHER)
    assert len(made) == 3
    for _ in range(PAUSE):
        replica.prefetch()
        replica.drawn(after, SPEC)
    assert len(made) == 3 + PAUSE
    replica.prefetch()
    assert len(made) == 3 + PAUSE + 1


@pytest.mark.parametrize("lease_seconds", [None, 60.0])
def test_report_has_the_next_selection_drawn(
    letters: Service, monkeypatch: pytest.MonkeyPatch, lease_seconds: float | None
) -> None:
    """A trainer that stays with one server waits for no draw but the first."""
    made, run = draws(monkeypatch), letters.run("letters", "policy")
    for step in range(1, 6):
        batch = run.select(3, lease_seconds=lease_seconds)
        assert len(made) == step
        run.answer(batch)
        letters.wait_until(lambda wanted=step + 1: len(made) == wanted)  # type: ignore[misc]


def test_prefetched_selections_have_the_distribution_of_drawing_when_asked(replica: Replica) -> None:
    """Guarantee 4: 4,000 picks, chi-square at 1e-9."""
    posterior, picks = replica.view().posterior, np.zeros(26)
    replica.drawn(posterior, SPEC)
    for _ in range(4000):
        replica.prefetch()
        picks[replica.drawn(posterior, SPEC).selection.tasks] += 1
    alpha, beta = alpha_beta(posterior, replica.dataset.tasks, None)
    nearest = np.abs(np.random.default_rng(2).beta(alpha, beta, (400_000, 26)) - 0.5).argmin(axis=1)
    expected = np.bincount(nearest, minlength=26) / 100
    statistic = float(((picks - expected) ** 2 / expected).sum())
    assert statistic / (1 + 4000 / 400_000) < scipy.stats.chi2.isf(1e-9, df=25)
