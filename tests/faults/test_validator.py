"""The validator passes a right history, and finds each thing that can be wrong with one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.model import (
    Change,
    Content,
    Dataset,
    Entry,
    Fault,
    History,
    Hyperparameters,
    Outcomes,
    Restore,
    Retire,
    Selection,
    alpha_beta,
    replay,
)
from tests.faults.validator import Shown, outage, validate

DATASET = Dataset.draw(5, 12)


def change(number: int) -> Change:
    """Returns the change that makes version `number`, asked for and acknowledged in its second."""
    content: Content = Outcomes.of([number, 0], [1, 2.5], [4, 4], "first" if number < 3 else "")
    if number == 3:
        content = Hyperparameters.of({"forgetting": 0.2})
    if number == 4:
        content = Retire((3, 7))
    if number == 5:
        content = Restore(2)
    told = None if number == 3 else number
    return Change(f"id-{number}", "job", content, float(number), [(number + 0.5, told)])


def entry(number: int) -> Entry:
    return Entry(number, f"id-{number}", "job", change(number).content)


def right() -> History:
    """Returns six changes, of which the last was not acknowledged, and three selections, two of them with a lease.

    The first two changes are parts of the first selection.
    """
    changes = [change(number) for number in range(1, 7)]
    changes[5].answers.clear()
    selections = [
        Selection("job", "first", (1, 2), 2, 2.6, 2.7, resting=2, lease_until=5.0, given_back={1: 3.0, 2: 3.0}),
        Selection("job", "second", (2, 3), 3, 3.6, 3.7, resting=1, lease_until=5.0),
        Selection("job", "third", (1, 4), 4, 4.6, 4.7, resting=1),
    ]
    return History(changes, selections)


def shown(log: list[Entry]) -> dict[str, Shown]:
    """Returns two servers that show what the log leads to."""
    state = replay(DATASET, [replace(one, version=i) for i, one in enumerate(log, 1)])
    return {name: Shown(len(log), list(log), *alpha_beta(state)) for name in ("one", "other")}


@pytest.mark.parametrize("last", [5, 6])
def test_a_right_history_passes(last: int) -> None:
    """A change that nobody heard of may be there or not; everything else is as it was told."""
    verdict = validate(right(), DATASET, shown([entry(number) for number in range(1, last + 1)]))
    assert verdict.violations == []
    assert (verdict.acknowledged, verdict.lost, verdict.doubled, verdict.selections) == (5, 0, 0, 3)
    assert (verdict.unacknowledged, verdict.unacknowledged_stored) == (1, last - 5)


def lost(log: list[Entry]) -> list[Entry]:
    return log[:3]


def doubled(log: list[Entry]) -> list[Entry]:
    return [*log, replace(log[0], version=6)]


def gap(log: list[Entry]) -> list[Entry]:
    return [*log[:4], replace(log[4], version=6)]


def in_part(log: list[Entry]) -> list[Entry]:
    return [replace(log[0], content=Outcomes.of([1], [1], [4])), *log[1:]]


def by_another(log: list[Entry]) -> list[Entry]:
    return [replace(log[0], job="other"), *log[1:]]


def invented(log: list[Entry]) -> list[Entry]:
    return [*log, Entry(6, "nobody's", "job", Outcomes.of([1], [1], [4]))]


def swapped(log: list[Entry]) -> list[Entry]:
    return [replace(log[1], version=1), replace(log[0], version=2), *log[2:]]


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lost, "acknowledged as version 4, in the log not at all"),
        (doubled, "id-1 is 2 times in the log"),
        (gap, "version 6 in the place of 5"),
        (in_part, "not what was asked under id-1"),
        (by_another, "not what was asked under id-1"),
        (invented, "nobody asked for nobody's"),
        (swapped, "id-1: acknowledged as version 1, in the log 2"),
    ],
)
def test_a_log_that_was_tampered_with_is_found(tamper: Callable[[list[Entry]], list[Entry]], found: str) -> None:
    """A log that lost, doubled, invented, cut or moved a change is not what was told."""
    log = tamper([entry(number) for number in range(1, 6)])
    verdict = validate(right(), DATASET, shown(log))
    assert any(found in violation for violation in verdict.violations), verdict.violations
    assert verdict.doubled == (tamper is doubled)
    assert verdict.lost == (2 if tamper is lost else 0)


def second_answer(history: History) -> None:
    history.changes[0].answers.append((9.0, 6))


def stale(history: History) -> None:
    history.selections[2].version = 3


def two_leases(history: History) -> None:
    del history.selections[0].given_back[2]


def leased_to_another(history: History) -> None:
    history.selections[2].tasks = (2, 4)


def retired(history: History) -> None:
    history.selections[2].tasks = (1, 7)


def not_resting(history: History) -> None:
    history.selections[0].resting = 1


def ranks_that_differ(history: History) -> None:
    history.disagreements.append((1.0, 1.5, "job: ranks got different batches"))


def refused(history: History) -> None:
    history.refusals.append("job: INTERNAL")


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (second_answer, "id-1: acknowledged as version 6, in the log 1"),
        (stale, "saw version 3, asked after 4"),
        (two_leases, "task 2: leased to first and second"),
        (leased_to_another, "task 2: leased to second, selected by job"),
        (retired, "job: selected [7], retired at version 4"),
        (not_resting, "job: told 1 resting tasks, 2 rest at 2"),
        (ranks_that_differ, "ranks got different batches"),
        (refused, "INTERNAL"),
    ],
)
def test_a_wrong_answer_is_found(tamper: Callable[[History], None], found: str) -> None:
    """An answer that is wrong when it is given is found, whatever the log says."""
    history = right()
    tamper(history)
    verdict = validate(history, DATASET, shown([entry(number) for number in range(1, 6)]))
    assert any(found in violation for violation in verdict.violations), verdict.violations


def test_a_wrong_order_is_found() -> None:
    """What was asked for after a version was acknowledged does not come before it."""
    history = right()
    history.changes[0].asked = 4.9
    history.changes[0].answers = [(4.95, 1)]
    verdict = validate(history, DATASET, shown([entry(number) for number in range(1, 6)]))
    assert verdict.violations == ["id-1: version 1, asked for after 4 was acknowledged"]


def test_servers_that_differ_are_found() -> None:
    """A server with another log, version or posterior than the log leads to is found, and by how much."""
    servers = shown([entry(number) for number in range(1, 6)])
    servers["other"].alpha[7] += 0.01
    servers["other"] = replace(servers["other"], version=4, log=servers["other"].log[:4])
    assert validate(right(), DATASET, servers).violations == [
        "other: shows another log",
        "other: at version 4, the log ends at 5",
        "other: alpha or beta is 0.01 off",
    ]
    servers["other"].alpha[7] = math.nan
    assert "other: alpha or beta is nan off" in validate(right(), DATASET, servers).violations


@pytest.mark.parametrize("takes_back", [True, False])
def test_what_a_fault_takes_back_is_counted_and_only_then_right(takes_back: bool) -> None:
    """A loss is a violation if the durability covers the fault, and a figure if it does not."""
    history = right()
    history.faults.append(Fault("older_file", 4.8, 9.0, takes_back))
    verdict = validate(history, DATASET, shown([entry(number) for number in range(1, 4)]))
    assert verdict.lost == 2
    assert (verdict.violations == []) == takes_back
    # What was acknowledged after the fault is not excused by it.
    history.changes[3].answers.append((9.5, 4))
    assert validate(history, DATASET, shown([entry(number) for number in range(1, 4)])).violations


def test_an_outage_is_the_longest_silence_around_a_fault() -> None:
    """Silence elsewhere does not count."""
    history = History([Change(str(at), "job", Restore(1), at, [(at, 1)]) for at in (1.0, 1.5, 4.5, 5.0, 5.2, 9.0)])
    assert outage(history, Fault("any", 2.0, 4.6, takes_back=False)) == 3.0
    assert outage(history, Fault("any", 4.7, 5.1, takes_back=False)) == 0.5
