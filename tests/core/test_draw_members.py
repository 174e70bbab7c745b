"""Members: the draws of a range belong to distinct free members of it, uniformly at random."""

import numpy as np
import pytest

from bots_server.core.arrays import find
from bots_server.core.draw.eligible import eligible
from bots_server.core.draw.lists import Members
from tests.core.draw_oracle import assert_frequencies, world


@pytest.mark.parametrize("blocked", [1, 5])
def test_every_ordered_choice_of_distinct_members_is_equally_likely(blocked: int) -> None:
    """Assigned are distinct available members; every ordered choice has the same probability, also in several steps."""
    where = world([(1.0, 1.0, 4 + blocked), (2.0, 2.0, 30)])
    members = np.flatnonzero(where.tasks.stratum == 0)
    excluded, free = members[:blocked], members[blocked:]
    found = eligible(where.posterior, where.tasks, excluded, None)
    rng = np.random.default_rng(1)
    counts = np.zeros((4, 4, 4), np.int64)
    for _ in range(3000):
        source = Members(found)
        first = source.assign(rng, np.array([1, 0, 0, 1]))
        second = source.assign(rng, np.array([0, 1, 1]))
        given = np.append(first[1:3], second[0])
        assert len({*first.tolist(), *second.tolist()}) == 7
        assert (where.tasks.stratum[[first[0], first[3], second[1], second[2]]] == 1).all()
        counts[tuple(free.searchsorted(given))] += 1
    possible = counts[counts > 0]
    assert len(possible) == 24
    assert_frequencies(possible, np.full(24, 1 / 24))


def test_an_individual_is_its_own_only_task() -> None:
    """An individual's only task is itself; ranges never assign it."""
    where = world([(1.0, 1.0, 6)], {2: (1.0, 1.0), 5: (2.0, 1.0)})
    found = eligible(where.posterior, where.tasks, np.empty(0, np.int64), None)
    assigned = Members(found).assign(np.random.default_rng(1), np.array([1, 2, 2, 0, 2, 2]))
    assert assigned[[0, 3]].tolist() == [5, 2]
    assert sorted(assigned.tolist()) == [0, 1, 2, 3, 4, 5]


def test_large_and_small_ranges_are_emptied_to_the_last_member() -> None:
    """All free members of all ranges can be assigned, step by step."""
    where = world([(1.0, 1.0, 500), (1.0, 2.0, 1), (3.0, 2.0, 40)], dict.fromkeys(range(0, 100, 3), (1.0, 1.0)), tags=2)
    found = eligible(where.posterior, where.tasks, np.arange(200, 230), [[0], [1]])
    source, rng = Members(found), np.random.default_rng(1)
    rest = rng.permutation(np.repeat(np.arange(len(found.count())), found.count()))
    given = np.concatenate([source.assign(rng, step) for step in np.split(rest, [1, 40, 41, 300, 450])])
    assert sorted(given.tolist()) == np.setdiff1d(np.arange(541), np.arange(200, 230)).tolist()


def test_contains_says_which_are_in_a_sorted_array() -> None:
    """`find` works for arrays of any shape, and for an empty set."""
    assert find(np.array([2, 5]), np.array([[1, 2], [5, 9]]))[1].tolist() == [[False, True], [True, False]]
    assert find(np.empty(0, np.int64), np.array([[1, 2]]))[1].tolist() == [[False, False]]
