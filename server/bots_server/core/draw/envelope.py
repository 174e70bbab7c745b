"""Beta draws that fall into a window, without making those that do not.

Of n draws, those in a window are found by thinning: the density is bounded by an envelope that is easy to draw from.
Each of the n proposes a point of the window with probability `mass`, the envelope's integral, so that the number of
proposals is Binomial(n, mass); a proposal is kept with probability density / envelope. The kept proposals have exactly
the distribution of those of n draws that fall into the window. Neither the distribution function nor its inverse is
needed: betainc and betaincinv cost several times as much, and the latter is inaccurate for small parameters. The mass
needs only a bound of the density's norm, so the norm itself is computed for the few proposals alone.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from bots_server.core.arrays import Bools, Floats, Ints

_HALF_LOG_2_PI = 0.5 * np.log(2 * np.pi)


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """Envelopes of m Beta densities over windows [target + low, target + high] within [0, 1].

    With x^(alpha - 1) (1 - x)^(beta - 1) for the density (its norm is in `mass` alone), the envelope is
    exp(`log_height`), or exp(`log_height`) x^(alpha - 1) if `power`.
    """

    target: float
    alpha: Floats  # `[m]`
    beta: Floats  # `[m]`
    log_norm: Floats  # `[m]` at most log B(alpha, beta)
    low: Floats  # `[m]` offsets from the target
    high: Floats  # `[m]` offsets from the target
    log_height: Floats  # `[m]`
    power: Bools  # `[m]`
    mass: Floats  # `[m]` probability of a proposal; 0 if the window is empty; may be above 1, or infinite


def log_norm_bound(alpha: Floats, beta: Floats) -> Floats:
    """Returns a lower bound of log B(alpha, beta): the first terms of Stirling's series, whose remainder is positive.

    Ten times cheaper than the value, and less than it by at most 1/6 if alpha and beta are at least 1.
    """
    total = alpha + beta
    bound = (alpha - 0.5) * np.log(alpha)
    bound += (beta - 0.5) * np.log(beta)
    bound -= (total - 0.5) * np.log(total)
    bound -= 1 / (12 * total)
    bound += _HALF_LOG_2_PI
    return bound


def envelope(target: float, alpha: Floats, beta: Floats, log_norm: Floats, low: Floats, high: Floats) -> Envelope:
    """Returns the envelopes; `log_norm` is log B(alpha, beta), or a lower bound, which raises them.

    An envelope is level, at the highest density of the window: tight if the density changes little. Only a pole at 0
    (alpha < 1) that is in the window, or near it, is followed. A pole at 1 makes the mass large or infinite.
    """
    first, last = np.maximum(target + low, 0.0), np.minimum(target + high, 1.0)
    width = high - low
    mode = alpha - 1
    mode /= np.maximum(alpha + beta - 2, 1e-300)
    np.maximum(mode, first, out=mode)
    np.minimum(mode, last, out=mode)
    log_height = (alpha - 1) * np.log(np.maximum(mode, 1e-300))
    log_height += (beta - 1) * np.log(np.maximum(1 - mode, 1e-300))
    power = np.zeros(len(alpha), np.bool_)
    poles = ((alpha < 1) | (beta < 1)).nonzero()[0]
    if len(poles):
        log_height[poles], power[poles], width[poles] = _with_pole(
            alpha[poles], beta[poles], first[poles], last[poles], width[poles]
        )
    with np.errstate(over="ignore", invalid="ignore"):
        mass: Floats = np.where(high > low, width * np.exp(log_height - log_norm), 0.0)
    return Envelope(target, alpha, beta, log_norm, low, high, log_height, power, mass)


def _with_pole(alpha: Floats, beta: Floats, first: Floats, last: Floats, width: Floats) -> tuple[Floats, Bools, Floats]:
    """Returns `log_height`, `power` and the integral of the envelope without its height, for densities with a pole.

    With a pole the mode is no maximum, so the product of the maxima of both factors is taken.
    """
    rising, falling = alpha < 1, beta < 1  # towards 0, towards 1
    power = rising & (2 * first < last)
    log_height = np.asarray(special.xlog1py(beta - 1, -np.where(falling, last, first)), np.float64)
    level = special.xlogy(alpha - 1, np.where(rising, first, last))
    log_height += np.where(power, 0.0, level)
    exponent = alpha[power]
    width[power] = (last[power] ** exponent - first[power] ** exponent) / exponent
    return log_height, power, width


def propose(rng: np.random.Generator, of: Envelope, which: Ints) -> tuple[Floats, Bools]:
    """Returns `[n]` offsets from the target, one drawn from each envelope `which`, and whether each is kept."""
    low, high, alpha, beta = of.low.take(which), of.high.take(which), of.alpha.take(which), of.beta.take(which)
    fraction = rng.random(len(which))
    offset = low + fraction * (high - low)
    power = of.power.take(which)
    if power.any():
        first, last = np.maximum(of.target + low[power], 0.0), np.minimum(of.target + high[power], 1.0)
        exponent = alpha[power]
        from_zero = (first**exponent + fraction[power] * (last**exponent - first**exponent)) ** (1 / exponent)
        offset[power] = np.clip(from_zero - of.target, low[power], high[power])
    x = np.minimum(np.maximum(of.target + offset, 0.0), 1.0)
    log_density = special.xlog1py(beta - 1, -x) - of.log_height.take(which)
    log_density += np.where(power, 0.0, special.xlogy(alpha - 1, x))
    log_density += of.log_norm.take(which) - special.betaln(alpha, beta)
    return offset, log_density > -rng.standard_exponential(len(which))


def density(at: float, alpha: Floats, beta: Floats, log_norm: Floats) -> Floats:
    """Returns the Beta densities at a point of [0, 1]; infinite at a pole, and higher if `log_norm` is a bound."""
    if 0 < at < 1:
        return np.asarray(np.exp((alpha - 1) * np.log(at) + (beta - 1) * np.log1p(-at) - log_norm))
    with np.errstate(over="ignore"):
        return np.exp(special.xlogy(alpha - 1, at) + special.xlog1py(beta - 1, -at) - log_norm)
