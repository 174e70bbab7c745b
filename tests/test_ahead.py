"""A selection drawn ahead is as good as one drawn when asked: used once, and only for the posterior it is of."""

import numpy as np
import scipy.stats

from bots_server.ahead import PAUSE, Ahead
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import Posterior, Report, alpha_beta, fold, gather, start
from bots_server.core.strata import StrataBuilder
from bots_server.core.tasks import arrange
from bots_server.runs.dataset import Dataset
from bots_server.runs.selection import Selection, Wish
from bots_server.storage.v1 import storage_pb2 as storage

WISH = Wish(batch_size=1, target=None, greedy=None, temperature=None)


class Maker:
    """Makes selections of one of twelve tasks, and remembers for which posteriors."""

    def __init__(self) -> None:
        builder = StrataBuilder(0.0)
        stratum = builder.add(None, None, None, None, 12)
        self.tasks = arrange(builder.strata(), stratum)
        self.rng = np.random.default_rng(1)
        self.made: list[Posterior] = []

    def __call__(self, posterior: Posterior, wish: Wish) -> Selection:
        self.made.append(posterior)
        dataset = Dataset(storage.DatasetRecord(), self.tasks, ids=None)
        return Selection(self.rng, storage.RunRecord(), dataset, posterior, wish)

    def posteriors(self) -> tuple[Posterior, Posterior]:
        """Returns a run at its start, and after a report."""
        begin = start(self.tasks, Hyperparameters())
        evidence = gather(np.array([0, 1, 2]), np.array([8.0, 4.0, 0.0]), np.array([8.0, 8.0, 8.0]))
        return begin, fold(begin, self.tasks, Report(evidence, None, None, time_ms=1))


def test_a_draw_ahead_is_used_once_and_for_its_posterior_alone() -> None:
    """What was drawn ahead fits the same posterior and wish; else, and the next time, a draw is made when asked."""
    make = Maker()
    before, after = make.posteriors()
    ahead = Ahead(make)
    ahead.prepare(after)
    assert make.made == []  # nobody has selected yet: nobody knows what for
    ahead.take(before, WISH)
    ahead.prepare(after)
    ahead.prepare(after)
    assert make.made == [before, after]  # one draw ahead for one selection
    ahead.take(after, WISH)
    assert len(make.made) == 2
    ahead.take(after, WISH)
    assert len(make.made) == 3


def test_a_draw_ahead_of_another_posterior_or_wish_is_dropped() -> None:
    """Where the run has moved on, or another batch is asked for, the draw is dropped, and so are the next few."""
    for posterior, wish in ((0, WISH), (1, Wish(2, None, None, None))):
        make = Maker()
        run = make.posteriors()
        ahead = Ahead(make)
        ahead.take(run[1], WISH)
        ahead.prepare(run[1])
        assert len(make.made) == 2
        ahead.take(run[posterior], wish)
        assert make.made[2] is run[posterior]
        for _ in range(PAUSE - 1):
            ahead.prepare(run[1])
            ahead.take(run[1], WISH)
        assert len(make.made) == 3 + PAUSE - 1
        ahead.prepare(run[1])
        assert len(make.made) == 3 + PAUSE


def test_draws_ahead_have_the_distribution_of_draws_when_asked() -> None:
    """Selection has exactly the distribution of drawing every task: 4,000 picks drawn ahead, chi-square at 1e-9."""
    make = Maker()
    posterior = make.posteriors()[1]
    ahead = Ahead(make)
    picks = np.zeros(12)
    ahead.take(posterior, WISH)
    for _ in range(4000):
        ahead.prepare(posterior)
        picks[ahead.take(posterior, WISH).answer().tasks] += 1
    assert len(make.made) == 4001
    alpha, beta = alpha_beta(posterior, make.tasks, None)
    nearest = np.abs(np.random.default_rng(2).beta(alpha, beta, (400_000, 12)) - 0.5).argmin(axis=1)
    expected = np.bincount(nearest, minlength=12) / 100
    statistic = float(((picks - expected) ** 2 / expected).sum())
    assert statistic / (1 + 4000 / 400_000) < scipy.stats.chi2.isf(1e-9, df=11)
