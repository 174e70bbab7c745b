"""Beta draws that fall into a window, without making those that do not.

Of n draws, those in a window are found by thinning: the density is at most an envelope, which is easy to draw from.
Each of the n proposes a point of the window with probability `mass`, the envelope's integral, so that the number of
proposals is Binomial(n, mass); a proposal is kept with probability density / envelope. What is kept has exactly the
distribution of those of n draws that fall into the window. Neither the distribution function nor its inverse is
needed: betainc and betaincinv cost several times as much, and the latter is inaccurate for small parameters.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """Envelopes of m Beta densities over windows [target + low, target + high] within [0, 1].

    With x^(alpha - 1) (1 - x)^(beta - 1) for the density (its norm is in `mass` alone), the envelope is
    exp(`log_height`), or exp(`log_height`) x^(alpha - 1) where `power` says so.

    alpha, beta: `[m]`
    low, high:   `[m]` offsets from the target
    log_height:  `[m]`
    power:       `[m]`
    mass:        `[m]` probability of a proposal; 0 where the window is empty, may be above 1 and infinite
    """

    target: float
    alpha: Floats
    beta: Floats
    low: Floats
    high: Floats
    log_height: Floats
    power: NDArray[np.bool_]
    mass: Floats


def envelope(target: float, alpha: Floats, beta: Floats, log_norm: Floats, low: Floats, high: Floats) -> Envelope:
    """Returns the envelopes; `log_norm` is log B(alpha, beta).

    It is level, at the highest density of the window: tight where the density changes little. Only a pole at 0
    (alpha < 1) that is in the window, or near it, is followed. One at 1 makes the mass large or infinite.
    """
    first, last = np.maximum(target + low, 0.0), np.minimum(target + high, 1.0)
    rising, falling = alpha < 1, beta < 1  # towards 0, towards 1
    mode = np.clip((alpha - 1) / np.maximum(alpha + beta - 2, 1e-300), first, last)
    # With a pole, no place has the density's maximum for certain: take that of each factor.
    pole = rising | falling
    power = rising & (2 * first < last)
    log_height = np.asarray(
        special.xlog1py(beta - 1, -np.where(pole, np.where(falling, last, first), mode)), np.float64
    )
    level = special.xlogy(alpha - 1, np.where(pole, np.where(rising, first, last), mode))
    log_height += np.where(power, 0.0, level)
    width = high - low
    if power.any():
        width[power] = (last[power] ** alpha[power] - first[power] ** alpha[power]) / alpha[power]
    with np.errstate(over="ignore", invalid="ignore"):
        mass: Floats = np.where(high > low, width * np.exp(log_height - log_norm), 0.0)
    return Envelope(target, alpha, beta, low, high, log_height, power, mass)


def propose(rng: np.random.Generator, of: Envelope, which: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """Returns `[n]` offsets from the target, one drawn from each envelope `which`, and whether each is kept."""
    low, high, alpha = of.low.take(which), of.high.take(which), of.alpha.take(which)
    fraction = rng.random(len(which))
    offset = low + fraction * (high - low)
    power = of.power.take(which)
    if power.any():
        first, last = np.maximum(of.target + low[power], 0.0), np.minimum(of.target + high[power], 1.0)
        exponent = alpha[power]
        from_zero = (first**exponent + fraction[power] * (last**exponent - first**exponent)) ** (1 / exponent)
        offset[power] = np.clip(from_zero - of.target, low[power], high[power])
    x = np.clip(of.target + offset, 0.0, 1.0)
    log_density = special.xlog1py(of.beta.take(which) - 1, -x) - of.log_height.take(which)
    log_density += np.where(power, 0.0, special.xlogy(alpha - 1, x))
    return offset, log_density > -rng.standard_exponential(len(which))


def density(at: float, alpha: Floats, beta: Floats, log_norm: Floats) -> Floats:
    """Returns the Beta densities at a point of [0, 1]; infinite at a pole."""
    with np.errstate(over="ignore"):
        return np.exp(special.xlogy(alpha - 1, at) + special.xlog1py(beta - 1, -at) - log_norm)
