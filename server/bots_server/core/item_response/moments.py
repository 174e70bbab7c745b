"""Integrals over the logit of one task, by Gauss-Hermite quadrature with 21 points."""

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

from bots_server.core.arrays import Floats, blocks

NODES, _WEIGHTS = hermegauss(21)
WEIGHTS = _WEIGHTS / _WEIGHTS.sum()

# Least variance of a pass rate, least alpha + beta, and least alpha and beta: no prediction is a certainty.
MIN_VARIANCE = 1e-9
MIN_EVIDENCE = 0.05
MIN_SHAPE = 0.02

_BLOCK = 4096  # logits at once: 21 points of each fit into the second-level cache


def sigmoid(logits: Floats) -> Floats:
    """Returns the pass rate of each logit."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits))


def matching_beta(mean: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Returns `[n]` alpha and `[n]` beta of the Betas with the moments of pass rates whose logits are Gaussian.

    The moments are those of the logit-normal distribution, bounded so that no Beta is narrower than the quadrature can
    tell, nor so wide that its draws are all 0 or 1.
    """
    alpha, beta = np.empty(len(mean)), np.empty(len(mean))
    for block in blocks(len(mean), _BLOCK):
        # The pass rate of the rarer result, whose moments do not cancel.
        points = np.multiply.outer(NODES, np.sqrt(variance[block]))
        points += np.abs(mean[block])
        np.minimum(points, 700.0, out=points)
        np.exp(points, out=points)
        points += 1.0
        np.reciprocal(points, out=points)
        first = WEIGHTS @ points
        points *= points
        second = WEIGHTS @ points
        evidence = np.maximum(first * (1 - first) / np.maximum(second - first * first, MIN_VARIANCE) - 1, MIN_EVIDENCE)
        rarer, other = np.maximum(first * evidence, MIN_SHAPE), np.maximum((1 - first) * evidence, MIN_SHAPE)
        up = mean[block] > 0
        alpha[block], beta[block] = np.where(up, other, rarer), np.where(up, rarer, other)
    return alpha, beta


def after_outcome(mean: Floats, variance: Floats, successes: Floats, rollouts: Floats) -> tuple[Floats, Floats, Floats]:
    """Returns mean, variance and log normaliser of Normal(mean, variance) x p^k (1 - p)^(n - k), p = sigmoid(logit).

    All of one shape. The points of the quadrature lie about the mean of the Normal, as the model defines them.
    """
    after, spread, log_normaliser = np.empty((3, *mean.shape))
    for block in blocks(len(mean), _BLOCK * len(mean) // max(mean.size, 1)):
        points = mean[block, ..., None] + np.sqrt(variance[block])[..., None] * NODES
        log_terms = successes[block, ..., None] * points - rollouts[block, ..., None] * np.logaddexp(0, points)
        top = log_terms.max(-1, keepdims=True)
        terms = np.exp(log_terms - top) * WEIGHTS
        total = terms.sum(-1)
        terms /= total[..., None]
        after[block] = middle = (terms * points).sum(-1)
        spread[block] = (terms * (points - middle[..., None]) ** 2).sum(-1)
        log_normaliser[block] = np.log(total) + top[..., 0]
    return after, spread, log_normaliser
