"""Prefetch: after a report the next selection is drawn before it is asked for; used once, of the newest posterior."""

import threading

import numpy as np
import pytest
import scipy.stats
from prometheus_client import CollectorRegistry

from bots_server.core.draw import SelectionSpec
from bots_server.core.posterior import Posterior, alpha_beta
from bots_server.core.tasks import Tasks
from bots_server.errors import StoreUnavailable
from bots_server.runs.dataset import DatasetCache
from bots_server.runs.memory import Memory
from bots_server.runs.prefetch import MOST_PAUSED
from bots_server.runs.replica import MANY_OUTCOMES, Replica
from bots_server.runs.selection import SPARE, Drawn, draw
from bots_server.telemetry.metrics import Metrics
from tests.api.service import Service

SPEC, OTHER = SelectionSpec(batch_size=1), SelectionSpec(batch_size=2)


@pytest.fixture
def replica(letters: Service) -> Replica:
    """A replica of a run that has evidence."""
    letters.run("letters", "policy").report([0, 1, 2], [4, 2, 0])
    record = letters.store.runs.get(letters.store.datasets.get("letters"), "policy")
    datasets = DatasetCache(letters.store, Memory(2**30))
    return Replica(letters.store, Metrics(CollectorRegistry()), datasets, record, threading.Event())


def draws(monkeypatch: pytest.MonkeyPatch) -> list[Posterior]:
    """Returns a list to which every draw adds its posterior."""
    made: list[Posterior] = []

    def counted(posterior: Posterior, tasks: Tasks, spec: SelectionSpec) -> Drawn:
        drawn = draw(posterior, tasks, spec)
        made.append(posterior)
        return drawn

    monkeypatch.setattr("bots_server.runs.prefetch.draw", counted)
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


def test_further_candidates_of_a_draw_follow_its_first(replica: Replica) -> None:
    """However often they are drawn again."""
    posterior, tasks = replica.view().posterior, replica.dataset.tasks
    spec = SelectionSpec(batch_size=1, uniform_fraction=0.5, quotas=((0, 1),), fill=True)
    for seed in range(20):
        drawn = draw(posterior, tasks, spec, seed)
        (first,) = drawn.parts
        for spare in (SPARE, 4 * SPARE, SPARE):
            (further,) = drawn.again(tasks).offer(spare)
            assert further.tasks[: len(first.tasks)].tolist() == first.tasks.tolist()
            np.testing.assert_array_equal(further.draws[: len(first.draws)], first.draws)


@pytest.mark.parametrize("changed", ["posterior", "spec"])
def test_prefetch_of_another_posterior_or_spec_is_dropped(
    letters: Service, replica: Replica, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """And the next selection is prefetched again."""
    made, before = draws(monkeypatch), replica.view().posterior
    replica.drawn(before, SPEC)
    replica.prefetch()
    assert len(made) == 2
    letters.run("letters", "policy").report([3], [1])
    after = replica.view().posterior
    replica.drawn(after if changed == "posterior" else before, SPEC if changed == "posterior" else OTHER)
    assert len(made) == 3
    letters.run("letters", "policy").report([3], [1])
    replica.prefetch()
    assert len(made) == 4


def test_prefetches_that_are_not_used_become_rare(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Selections between them that are not prefetched: 0, 1, 3, 7, 15, 15; after one that is used: 0 again."""
    made, posterior = draws(monkeypatch), replica.view().posterior
    pauses = [0]
    for number in range(60):
        replica.drawn(posterior, OTHER if number % 2 else SPEC)
        before = len(made)
        replica.prefetch()
        if len(made) > before:
            pauses.append(0)
        else:
            pauses[-1] += 1
    assert pauses[1:7] == [0, 1, 3, 7, MOST_PAUSED, MOST_PAUSED]
    while True:
        replica.drawn(posterior, SPEC)
        before = len(made)
        replica.prefetch()
        if len(made) > before:
            break
    replica.drawn(posterior, SPEC)  # uses it
    for _ in range(2):
        before = len(made)
        replica.prefetch()
        assert len(made) == before + 1
        replica.drawn(posterior, OTHER)
        replica.drawn(posterior, SPEC)


def test_prefetch_awaits_all_parts_of_a_batch(
    letters: Service, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many events as came between the two selections before, so that from then on all prefetches are used."""
    made, run = draws(monkeypatch), letters.run("letters", "policy")
    for step in range(6):
        selected = len(made)
        replica.drawn(replica.view().posterior, SPEC)
        assert len(made) == selected + (step < 2)
        for part in range(3):
            run.report([part], [1])
            before = len(made)
            replica.prefetch()
            assert (len(made) > before) == (part == 2 if step else part == 0)


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


def test_long_report_is_folded_when_it_is_answered(letters: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own call, so that no caller reports faster than its reports are folded; if that fails, later."""
    policy, registry = letters.run("letters", "policy"), letters.server._registry
    monkeypatch.setattr(registry, "_submit", lambda *_: None)  # nothing is folded in the background
    long = [3] * (MANY_OUTCOMES + 1), [1] * (MANY_OUTCOMES + 1)
    version = policy.report(*long).version
    view = registry.open("letters", "policy").last_view()
    assert view is not None
    assert view.posterior.version == version == 1

    def away(replica: Replica) -> None:
        raise StoreUnavailable("is away")

    monkeypatch.setattr(Replica, "_view", away)
    assert policy.report(*long).version == 2
