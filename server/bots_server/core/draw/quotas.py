"""How a batch is divided among tags."""

import numpy as np

from bots_server.core.arrays import Floats, Ints


def divided(rng: np.random.Generator, number: int, weights: Floats, capacity: Ints) -> Ints:
    """Returns `[P]` counts drawn from Multinomial(number, weights / sum of weights), none above its capacity.

    What is drawn above a capacity is drawn again among the others. If all are full, fewer than `number` are returned.

    weights:  `[P]` at least 0
    capacity: `[P]`
    """
    counts = np.zeros(len(weights), np.int64)
    while True:
        open_weights = np.where(counts < capacity, weights, 0.0)
        left = number - int(counts.sum())
        if left == 0 or not open_weights.any():
            return counts
        share = open_weights / open_weights.max()  # so that the sum is finite
        counts += np.minimum(rng.multinomial(left, share / share.sum()), capacity - counts)


def by_weight(rng: np.random.Generator, batch_size: int, weights: Floats, eligible: Ints, available: Ints) -> Ints:
    """Returns `[P]` quotas drawn by weight, over the tags that have eligible tasks.

    eligible:  `[P]` tasks that do not rest
    available: `[P]` tasks, resting ones too; they count if there are too few eligible ones
    """
    quotas = divided(rng, batch_size, weights, eligible)
    quotas += divided(rng, batch_size - int(quotas.sum()), weights, available - quotas)
    if quotas.sum() < batch_size:  # the shortfall is reported where it was drawn
        quotas += divided(rng, batch_size - int(quotas.sum()), weights, np.full(len(weights), batch_size))
    return quotas
