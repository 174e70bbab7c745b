"""The fold: equal to the oracle, whatever the history, and to the last bit however its events are grouped."""

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import (
    Deviations,
    Event,
    Evidence,
    HyperparametersChanged,
    Posterior,
    Report,
    Restored,
    alpha_beta,
    fold,
    fold_all,
    gather,
    individuals,
    start,
)
from bots_server.core.tasks import Tasks
from tests.core.oracle import Oracle
from tests.strategies import Change, Columns, Outcomes, Step, cuts, outcomes, runs

pytestmark = pytest.mark.filterwarnings("error")

EXACT: dict[str, Any] = {"tolerance": 0.0}


def report(step: Outcomes, time_ms: int = 0) -> Report:
    evidence = gather(np.array(step.tasks), np.array(step.successes, np.float64), np.array(step.rollouts, np.float64))
    return Report(evidence, policy_step=None, selection_policy_step=None, time_ms=time_ms)


def play(tasks: Tasks, begin: Posterior, history: Iterable[Step]) -> tuple[list[Event], list[Posterior]]:
    """Returns the events of a history, and the state before the first and after each."""
    events: list[Event] = []
    states = [begin]
    for time_ms, step in enumerate(history, 1):
        event: Event
        if isinstance(step, Outcomes):
            event = report(step, time_ms)
        elif isinstance(step, Change):
            event = HyperparametersChanged(step.changes)
        else:
            event = Restored(states[step.version % len(states)])
        events.append(event)
        states.append(fold(states[-1], tasks, event))
    return events, states


def play_oracle(columns: Columns, begin: dict[str, Any], history: Iterable[Step]) -> list[Oracle]:
    """Returns the oracle before the first event of a history and after each."""
    states = [Oracle(**columns.each(), **begin)]
    for step in history:
        if isinstance(step, Outcomes):
            after = states[-1].copy()
            after.report(step.tasks, step.successes, step.rollouts)
        elif isinstance(step, Change):
            after = states[-1].copy()
            after.change(step.changes)
        else:
            after = states[step.version % len(states)].copy()
        states.append(after)
    return states


@given(runs())
def test_equals_the_equations_with_tolerance_0(run: tuple[Columns, dict[str, Any], list[Step]]) -> None:
    """With tolerance 0 alpha, beta, the capability and what cools are the oracle's after every event of any history."""
    columns, begin, history = run
    tasks = columns.arranged()
    _, states = play(tasks, start(tasks, Hyperparameters(**begin, **EXACT)), history)
    for version, (state, oracle) in enumerate(zip(states, play_oracle(columns, begin, history), strict=True)):
        alpha, beta = alpha_beta(state, tasks, None)
        np.testing.assert_allclose(alpha, oracle.alpha, rtol=1e-9, atol=0)
        np.testing.assert_allclose(beta, oracle.beta, rtol=1e-9, atol=0)
        assert (state.version, state.updates) == (version, oracle.updates)
        if oracle.kappa is None:
            assert state.capability is None
        else:
            assert state.capability == pytest.approx(oracle.kappa, rel=1e-9, abs=1e-9)
        own = individuals(state, tasks)
        assert set(own.tasks[own.cooling].tolist()) == set(np.flatnonzero(oracle.cooling).tolist())


@given(runs(max_steps=30))
def test_equals_the_equations_with_the_default_tolerance(run: tuple[Columns, dict[str, Any], list[Step]]) -> None:
    """The posterior equals the equations of the method to within 1e-4 in alpha and beta, for any history and any split
    of it into reports.
    """
    columns, begin, history = run
    tasks = columns.arranged()
    _, states = play(tasks, start(tasks, Hyperparameters(**begin)), history)
    for state, oracle in zip(states, play_oracle(columns, begin, history), strict=True):
        alpha, beta = alpha_beta(state, tasks, None)
        np.testing.assert_allclose(alpha, oracle.alpha, rtol=0, atol=1e-4)
        np.testing.assert_allclose(beta, oracle.beta, rtol=0, atol=1e-4)


@pytest.mark.parametrize("forgetting", [0.0, 1e-4, 0.003, 0.1])
def test_dropped_deviations_never_add_up(forgetting: float) -> None:
    """Where every update leaves a deviation just below the tolerance, the posterior is still right to 1e-4."""
    columns = Columns(2, weak=np.zeros(2, np.float32), strong=np.ones(2, np.float32))
    tasks = columns.arranged()
    begin: dict[str, Any] = {"forgetting": forgetting, "implicit_weight": 1.0, "capability_smoothing": 0.0}
    step = Outcomes(tasks=(0, 1), successes=(0.5 + 0.9e-6, 0.5 - 0.9e-6), rollouts=(1, 1))
    state, oracle = start(tasks, Hyperparameters(**begin)), Oracle(**columns.each(), **begin)
    for _ in range(2000):
        state = fold(state, tasks, report(step))
        oracle.report(step.tasks, step.successes, step.rollouts)
    np.testing.assert_allclose(alpha_beta(state, tasks, None), (oracle.alpha, oracle.beta), rtol=0, atol=1e-4)


@st.composite
def split_steps(draw: st.DrawFn) -> tuple[Columns, dict[str, Any], list[Outcomes], list[Outcomes]]:
    """A dataset, a start, training steps of one report each, and the same steps with each one split into reports."""
    columns, begin, _ = draw(runs(max_steps=1))
    whole, parts = [], []
    for _ in range(draw(st.integers(1, 6))):
        drawn = draw(st.lists(outcomes(columns.size, 3), min_size=3, max_size=3))
        whole.append(
            Outcomes(
                tasks=sum((part.tasks for part in drawn), ()),
                successes=sum((part.successes for part in drawn), ()),
                rollouts=sum((part.rollouts for part in drawn), ()),
            )
        )
        parts += draw(st.permutations(drawn))
    return columns, begin, whole, parts


@given(split_steps())
def test_a_split_step_is_the_step(case: tuple[Columns, dict[str, Any], list[Outcomes], list[Outcomes]]) -> None:
    """However a step's outcomes are split into reports and ordered, with its rollouts as R it is one update."""
    columns, begin, whole, parts = case
    tasks = columns.arranged()
    split = together = start(tasks, Hyperparameters(**begin | EXACT | {"rollouts_per_update": 0}))
    for position, step in enumerate(whole):
        together = fold(together, tasks, report(step))
        split = fold(split, tasks, HyperparametersChanged({"rollouts_per_update": sum(step.rollouts)}))
        for part in parts[3 * position : 3 * position + 3]:
            split = fold(split, tasks, report(part))
        assert split.updates == together.updates == position + 1
        assert len(split.pending) == 0
    for got, expected in zip(alpha_beta(split, tasks, None), alpha_beta(together, tasks, None), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=0)


def bits(state: Posterior) -> list[object]:
    """Returns everything that a state holds, to the last bit."""
    held: list[object] = []
    for field in fields(state):
        value = getattr(state, field.name)
        for part in [getattr(value, name.name) for name in fields(value)] if hasattr(value, "tasks") else [value]:
            held.append((part.dtype.str, part.tobytes()) if isinstance(part, np.ndarray) else part)
    return held


def stored(state: Posterior) -> Posterior:
    """Returns the state as it comes back from bytes: other memory, and nothing of it writable."""

    def load(array: NDArray[Any], stored_as: str) -> NDArray[Any]:
        loaded = np.frombuffer(array.astype(stored_as).tobytes(), stored_as).astype(array.dtype, copy=False)
        loaded.flags.writeable = False
        return loaded

    deviations, pending = state.deviations, state.pending
    return replace(
        state,
        baseline_alpha=load(state.baseline_alpha, "<f8"),
        baseline_beta=load(state.baseline_beta, "<f8"),
        deviations=Deviations(
            tasks=load(deviations.tasks, "<u4"),
            alpha=load(deviations.alpha, "<f8"),
            beta=load(deviations.beta, "<f8"),
            last_update=load(deviations.last_update, "<u8"),
        ),
        pending=Evidence(
            tasks=load(pending.tasks, "<u4"),
            successes=load(pending.successes, "<f8"),
            rollouts=load(pending.rollouts, "<f8"),
        ),
        total=load(state.total, "<f8"),
        recent=load(state.recent, "<f8"),
        tried=load(state.tried, "u1"),
    )


@given(runs(), st.data())
def test_same_bits_however_events_are_grouped(
    run: tuple[Columns, dict[str, Any], list[Step]], data: st.DataObject
) -> None:
    """One by one, all at once, or in groups with the state stored in between: every array is the same, bit for bit."""
    columns, begin, history = run
    tasks = columns.arranged()
    first = start(tasks, Hyperparameters(**begin))
    events, states = play(tasks, first, history)
    assert bits(fold_all(first, tasks, events)) == bits(states[-1])
    grouped = first
    for group in data.draw(cuts(len(events))):
        grouped = fold_all(stored(grouped), tasks, events[group])
    assert bits(grouped) == bits(states[-1])


@given(runs())
def test_never_changes_its_input(run: tuple[Columns, dict[str, Any], list[Step]]) -> None:
    """Folding on from a state leaves every bit of it as it was, so that a reader may hold it meanwhile."""
    columns, begin, history = run
    tasks = columns.arranged()
    _, states = play(tasks, start(tasks, Hyperparameters(**begin)), history)
    before = [bits(state) for state in states]
    for state in states:
        play(tasks, state, history)
    assert [bits(state) for state in states] == before


@given(runs(), st.data())
def test_some_tasks_are_read_as_all_are(run: tuple[Columns, dict[str, Any], list[Step]], data: st.DataObject) -> None:
    """alpha_beta of any tasks in any order, and individuals, are to the last bit what alpha_beta of all tasks says."""
    columns, begin, history = run
    tasks = columns.arranged()
    state = play(tasks, start(tasks, Hyperparameters(**begin)), history)[1][-1]
    which = np.array(data.draw(st.lists(st.integers(0, columns.size - 1), max_size=12)), np.int64)
    every = alpha_beta(state, tasks, None)
    own = individuals(state, tasks)
    for column, some, individual in zip(every, alpha_beta(state, tasks, which), (own.alpha, own.beta), strict=True):
        np.testing.assert_array_equal(some, column[which])
        np.testing.assert_array_equal(individual, column[own.tasks])
    assert (every[0] >= tasks.strata.prior_alpha[tasks.stratum]).all()
    assert (every[1] >= tasks.strata.prior_beta[tasks.stratum]).all()
    np.testing.assert_array_equal(own.tasks, np.unique(own.tasks))
    np.testing.assert_array_equal(state.deviations.tasks, np.unique(state.deviations.tasks))


def test_a_deviation_is_dropped_when_small_and_past_its_cooldown() -> None:
    """An evaluated task goes back to its stratum's baseline when it is below the tolerance and no longer cools."""
    tasks = Columns(3).arranged()
    state = start(tasks, Hyperparameters(forgetting=0.9, cooldown=10))
    state = fold(state, tasks, report(Outcomes((1,), (8.0,), (16,))))
    cooled = []
    while 1 in state.deviations.tasks:
        cooled.append(bool(individuals(state, tasks).cooling[state.deviations.tasks == 1][0]))
        state = fold(state, tasks, report(Outcomes((0,), (8.0,), (16,))))
    # 8 pseudo-counts are below 1e-6 after 7 updates; the cooldown lasts until 10 updates came after its own.
    assert cooled == [True] * 10
    state = fold(state, tasks, HyperparametersChanged({"cooldown": 0}))
    state = fold(state, tasks, report(Outcomes((1,), (8.0,), (16,))))
    updates = 0
    while 1 in state.deviations.tasks:
        state = fold(state, tasks, report(Outcomes((0,), (8.0,), (16,))))
        updates += 1
    assert updates == 7
    assert state.deviations.tasks.tolist() == [0]


def test_pending_outcomes_wait_for_rollouts_per_update() -> None:
    """Pending outcomes are seen and cool, but are no update until R rollouts are pending, or R is lowered to them."""
    tasks = Columns(3).arranged()
    state = start(tasks, Hyperparameters(rollouts_per_update=32, cooldown=1))
    state = fold(state, tasks, report(Outcomes((2,), (4.0,), (16,))))
    assert (state.version, state.updates, state.pending.rollouts.tolist()) == (1, 0, [16.0])
    assert alpha_beta(state, tasks, None)[0].tolist() == [1.0, 1.0, 5.0]
    own = individuals(state, tasks)
    assert (own.tasks.tolist(), own.cooling.tolist()) == ([2], [True])
    lowered = fold(state, tasks, HyperparametersChanged({"rollouts_per_update": 16, "forgetting": 0.0}))
    assert (lowered.version, lowered.updates, len(lowered.pending)) == (2, 1, 0)
    assert alpha_beta(lowered, tasks, None)[0].tolist() == [1.0, 1.0, 5.0]
    filled = fold(state, tasks, report(Outcomes((0, 2), (0.0, 1.0), (15, 1))))
    assert (filled.version, filled.updates, len(filled.pending)) == (2, 1, 0)
    assert filled.deviations.tasks.tolist() == [0, 2]


def test_restoring_goes_on_with_the_version() -> None:
    """A restore brings back everything but the version, which goes on."""
    tasks = Columns(2).arranged()
    first = start(tasks, Hyperparameters())
    state = fold(first, tasks, report(Outcomes((0,), (1.0,), (2,)), time_ms=7))
    state = fold(state, tasks, HyperparametersChanged({"target": 0.25}))
    restored = fold(state, tasks, Restored(first))
    assert restored.version == 3
    assert bits(replace(restored, version=0)) == bits(first)


def test_gather_sums_the_outcomes_of_a_task() -> None:
    """Several outcomes of one task are one, in order of task."""
    evidence = gather(np.array([5, 2, 5]), np.array([1.0, 0.5, 2.5]), np.array([4, 1, 4]))
    assert evidence.tasks.tolist() == [2, 5]
    assert evidence.successes.tolist() == [0.5, 3.5]
    assert evidence.rollouts.tolist() == [1.0, 8.0]
