"""Thinning: what is kept of the proposals are the draws that fall into the window."""

import numpy as np
import pytest
from scipy import special, stats

from bots_server.core.draw.envelope import Envelope, density, envelope, log_norm_bound, propose
from tests.core.draw_oracle import ERROR

PARAMETERS = [0.1, 0.5, 1.0, 1.3, 4.0, 200.0, 1e6]


def one(target: float, alpha: float, beta: float, low: float, high: float) -> Envelope:
    """Returns the envelope of one density over [target + low, target + high]."""
    norm = np.asarray(special.betaln([alpha], [beta]), np.float64)
    return envelope(target, np.array([alpha]), np.array([beta]), norm, np.array([low]), np.array([high]))


@pytest.mark.parametrize("target", [0.0, 1e-9, 0.03, 0.5])
@pytest.mark.parametrize("beta", PARAMETERS)
@pytest.mark.parametrize("alpha", PARAMETERS)
def test_kept_proposals_are_the_draws_in_the_window(alpha: float, beta: float, target: float) -> None:
    """Of n draws, Binomial(n, P(window)) are in the window, with the density's distribution there."""
    rng = np.random.default_rng(1)
    reach = 1 - target
    for inner, outer in ((-0.0, 1e-3), (0.01, 0.2), (0.2, 0.49), (0.0, reach)):
        for low, high in ((-min(outer, target), -min(inner, target)), (inner, outer), (-min(outer, target), outer)):
            chance = _between(alpha, beta, target + low, target + high)
            of = one(target, alpha, beta, low, high)
            assert of.mass[0] >= chance * (1 - 1e-6)
            if high <= low:
                assert of.mass[0] == 0
            if not 0 < of.mass[0] < 1e4 * chance or chance < 1e-200:
                continue
            offset, kept = propose(rng, of, np.zeros(600, np.int64))
            assert ((offset >= low) & (offset <= high)).all()
            share = min(chance / of.mass[0], 1.0)
            assert stats.binomtest(int(kept.sum()), len(kept), share).pvalue > ERROR
            if kept.sum() > 50:
                place = [_between(alpha, beta, target + low, target + at) / chance for at in offset[kept]]
                assert stats.kstest(place, "uniform").pvalue > ERROR


def _between(alpha: float, beta: float, first: float, last: float) -> float:
    """Returns P(first <= p <= last), from whichever end has the smaller numbers."""
    below = special.betainc(alpha, beta, last) - special.betainc(alpha, beta, first)
    above = special.betaincc(alpha, beta, first) - special.betaincc(alpha, beta, last)
    return float(below if special.betainc(alpha, beta, last) < 0.5 else above)


def test_the_bound_of_the_norm_is_below_it_and_near() -> None:
    """The bound is never above log B(alpha, beta), but for rounding, and less by at most 1/6 from 1 on."""
    alpha, beta = (each.ravel() for each in np.meshgrid(np.geomspace(0.1, 1e6, 200), np.geomspace(0.1, 1e6, 200)))
    less = np.asarray(special.betaln(alpha, beta), np.float64) - log_norm_bound(alpha, beta)
    assert less.min() > -1e-8
    assert less[(alpha >= 1) & (beta >= 1)].max() < 1 / 6


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 2.0), (1.0, 1.0), (4.0, 7.0)])
def test_higher_envelopes_keep_no_more(alpha: float, beta: float) -> None:
    """A bound in place of the norm makes more proposals, of which as much less are kept."""
    rng = np.random.default_rng(1)
    columns = np.array([alpha]), np.array([beta])
    window = np.array([-0.05]), np.array([0.1])
    of = envelope(0.3, *columns, log_norm_bound(*columns), *window)
    assert of.mass[0] > one(0.3, alpha, beta, -0.05, 0.1).mass[0]
    _, kept = propose(rng, of, np.zeros(20_000, np.int64))
    share = _between(alpha, beta, 0.25, 0.4) / of.mass[0]
    assert stats.binomtest(int(kept.sum()), len(kept), share).pvalue > ERROR


def test_a_level_density_wastes_nothing() -> None:
    """If the density is constant in the window, every proposal is kept."""
    of = one(0.3, 1.0, 1.0, -0.1, 0.2)
    assert of.mass[0] == pytest.approx(0.3, rel=1e-12)
    assert propose(np.random.default_rng(1), of, np.zeros(1000, np.int64))[1].all()


def test_densities_are_those_of_scipy() -> None:
    """The density is that of Beta(alpha, beta), at 0 and at poles too."""
    alpha, beta = np.array([1.0, 2.0, 0.5, 60.0]), np.array([1.0, 5.0, 3.0, 90.0])
    for at in (0.0, 0.4):
        np.testing.assert_allclose(
            density(at, alpha, beta, special.betaln(alpha, beta)), stats.beta.pdf(at, alpha, beta)
        )
