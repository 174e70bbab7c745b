"""The policy: a network of two layers that writes a sum digit by digit, from the last to the first.

At each place it sees five digits: the two to add here, the two to add one place before, and the digit that it wrote
there; these determine the carry. Each is one of 0 to 9 or BLANK, so the input of a place is 55 numbers of which five
are 1. The output is a distribution over the ten digits.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from bots.demo.sums import BLANK, Digits, Sums

Floats = npt.NDArray[np.floating]
SEEN = 5  # digits
ONE_HOT = np.eye(BLANK + 1, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Policy:
    """Weights of the network with H hidden units; also a gradient or a step in them.

    inner       `[55, H]` from the inputs to the hidden units.
    inner_bias  `[H]`
    outer       `[H, 10]` from the hidden units to the logits of the digits.
    outer_bias  `[10]`
    """

    inner: Floats
    inner_bias: Floats
    outer: Floats
    outer_bias: Floats

    def scaled(self, factor: float) -> Policy:
        """Returns factor * self."""
        return Policy(*(factor * getattr(self, field.name) for field in fields(self)))

    def plus(self, other: Policy) -> Policy:
        """Returns self + other."""
        return Policy(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def initial_policy(rng: np.random.Generator, hidden: int) -> Policy:
    """Returns random weights, float32."""
    inner = rng.standard_normal((SEEN * (BLANK + 1), hidden), dtype=np.float32) / np.sqrt(SEEN, dtype=np.float32)
    outer = rng.standard_normal((hidden, 10), dtype=np.float32) * np.float32(0.3 / np.sqrt(hidden))
    return Policy(inner, np.zeros(hidden, np.float32), outer, np.zeros(10, np.float32))


def seen(left: Digits, right: Digits, written: Digits) -> Floats:
    """Returns `[n, P, 55]` the inputs at each place of `[n, P]` sums after the policy has written `[n, P]` digits."""
    return _one_hot(left, right, _before(left), _before(right), _before(written))


def log_probabilities(policy: Policy, inputs: Floats) -> Floats:
    """Returns `[m, 10]` log-probabilities of the digits, given `[m, 55]` inputs."""
    return _log_softmax(_hidden(policy, inputs) @ policy.outer + policy.outer_bias)


def gradient(policy: Policy, inputs: Floats, digits: Digits, weights: Floats) -> Policy:
    """Returns the gradient of sum(weights * log p(digits)).

    inputs   `[m, 55]`
    digits   `[m]` written there.
    weights  `[m]`
    """
    hidden = _hidden(policy, inputs)
    at_logits = -np.exp(_log_softmax(hidden @ policy.outer + policy.outer_bias))
    at_logits[np.arange(len(digits)), digits] += 1
    at_logits *= weights[:, None]
    at_hidden = (at_logits @ policy.outer.T) * (hidden > 0)
    return Policy(inputs.T @ at_hidden, at_hidden.sum(axis=0), hidden.T @ at_logits, at_logits.sum(axis=0))


def write(rng: np.random.Generator, policy: Policy, sums: Sums) -> Digits:
    """Returns `[N, P]` digits sampled from the policy, one rollout of each sum."""
    written = np.full_like(sums.answer, BLANK)
    nothing = np.full(len(sums), BLANK, dtype=np.int8)
    for place in range(sums.answer.shape[1]):
        here = np.flatnonzero(sums.used[:, place])
        before = [digits[here, place - 1] if place else nothing[here] for digits in (sums.left, sums.right, written)]
        inputs = _one_hot(sums.left[here, place], sums.right[here, place], *before)
        # Largest log-probability with Gumbel noise: a draw from the softmax.
        exponential = rng.standard_exponential((len(here), 10), dtype=np.float32)
        noise = -np.log(np.maximum(exponential, np.finfo(np.float32).tiny))
        written[here, place] = np.argmax(log_probabilities(policy, inputs) + noise, axis=1)
    return written


def pass_rates(policy: Policy, sums: Sums) -> npt.NDArray[np.float64]:
    """Returns `[N]` the probability that the policy writes each answer, computed exactly, without rollouts."""
    inputs = seen(sums.left, sums.right, sums.answer)[sums.used]
    right = log_probabilities(policy, inputs)[np.arange(len(inputs)), sums.answer[sums.used]]
    by_place = np.zeros(sums.answer.shape)
    by_place[sums.used] = right
    return np.asarray(np.exp(by_place.sum(axis=1)))


def _one_hot(*digits: Digits) -> Floats:
    return np.concatenate([ONE_HOT[column] for column in digits], axis=-1)


def _before(digits: Digits) -> Digits:
    return np.pad(digits[:, :-1], ((0, 0), (1, 0)), constant_values=BLANK)


def _hidden(policy: Policy, inputs: Floats) -> Floats:
    return np.maximum(inputs @ policy.inner + policy.inner_bias, 0)


def _log_softmax(logits: Floats) -> Floats:
    logits = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))
