"""The fold: equal to the oracle, whatever the history, and to the last bit however its events are grouped."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots_server.core import deviations
from bots_server.core.coverage import restored
from bots_server.core.evidence import gather
from bots_server.core.hyperparameters import MODELS, Hyperparameters
from bots_server.core.interpolation import Interpolation
from bots_server.core.posterior import (
    OPEN_UPDATES,
    Event,
    HyperparametersChanged,
    Posterior,
    Report,
    Restored,
    Retired,
    Unretired,
    alpha_beta,
    fold,
    fold_all,
    individuals,
    reopened,
    start,
)
from bots_server.core.task_set import TaskSet
from bots_server.core.tasks import Tasks
from tests.core.oracle import Dense, Oracle, oracle
from tests.strategies import Change, Columns, Outcomes, Restore, Step, cuts, given_values, outcomes, runs

pytestmark = pytest.mark.filterwarnings("error")

Run = tuple[Columns, dict[str, Any], list[Step]]


def begun(tasks: Tasks, begin: dict[str, Any], model: str = "interpolation") -> Posterior:
    """Returns version 0 of a run."""
    return start(tasks, Hyperparameters(**begin), model)


def learned(posterior: Posterior) -> Interpolation:
    """Returns the state of the first model."""
    assert isinstance(posterior.state.learned, Interpolation)
    return posterior.state.learned


def report(step: Outcomes, time_ms: int = 0) -> Report:
    """Returns the event of outcomes."""
    evidence = gather(np.array(step.tasks), np.array(step.successes, np.float64), np.array(step.rollouts, np.float64))
    return Report(evidence, time_ms, step.selection, shadow_tasks=evidence.tasks)


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
        elif isinstance(step, Restore):
            event = Restored(states[step.version % len(states)])
        else:
            event = (Unretired if step.back else Retired)(np.array(step.tasks, np.int64))
        events.append(event)
        states.append(fold(states[-1], tasks, event))
    return events, states


@st.composite
def folded(draw: st.DrawFn) -> tuple[Columns, list[Posterior], list[Step]]:
    """A dataset, a run of any model over it before its first event and after each, and its history."""
    model = draw(st.sampled_from(MODELS))
    columns, begin, history = draw(runs(model=model))
    tasks = columns.arranged()
    return columns, play(tasks, begun(tasks, begin, model), history)[1], history


def play_oracle(begin: Oracle, history: Iterable[Step]) -> list[Oracle]:
    """Returns the oracle before the first event of a history and after each."""
    states = [begin]
    for step in history:
        after = states[-1].copy()
        if isinstance(step, Outcomes):
            after.report(step.tasks, step.successes, step.rollouts, step.selection)
        elif isinstance(step, Change):
            after.change(step.changes)
        elif isinstance(step, Restore):
            after = states[step.version % len(states)].restored()
        elif step.back:
            after.retired -= set(step.tasks)
        else:
            after.retired |= set(step.tasks)
        states.append(after)
    return states


def assert_equal(posterior: Posterior, tasks: Tasks, right: Dense, *, rtol: float, atol: float) -> None:
    """Fails if alpha, beta, the number of updates or the coverage are not the oracle's."""
    for got, expected in zip(alpha_beta(posterior, tasks, None), right.seen(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)
    state, coverage = posterior.state, posterior.state.coverage
    assert state.updates == right.updates
    assert set(coverage.ever.tasks().tolist()) == right.ever
    assert (coverage.evaluations, len(coverage.ever)) == (right.evaluations, len(right.ever))
    rank = [2 if task in right.current else 1 if task in right.previous else 0 for task in range(len(tasks))]
    assert coverage.rank(np.arange(len(tasks))).tolist() == rank
    assert coverage.ranks(len(tasks)).tolist() == rank
    cell = tasks.cell_of(np.arange(len(tasks)))
    assert coverage.resting_by_cell.tolist() == np.bincount(cell, np.array(rank) > 0).tolist()
    assert coverage.current_by_cell.tolist() == np.bincount(cell, np.array(rank) == 2).tolist()


@given(runs())
def test_equals_the_equations_with_tolerance_0(run: Run) -> None:
    """If no deviation is dropped, the state is the oracle's after every event of any history, to rounding."""
    columns, begin, history = run
    tasks = columns.arranged()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deviations, "TOLERANCE", 0.0)
        _, states = play(tasks, begun(tasks, begin), history)
    right_states = play_oracle(oracle(columns.each(), given_values(begin)), history)
    for version, (state, right) in enumerate(zip(states, right_states, strict=True)):
        now = right.now()
        assert_equal(state, tasks, now, rtol=1e-9, atol=0)
        assert state.version == version
        assert set(state.retired.tolist()) == right.retired
        assert learned(state).capability == (
            None if now.kappa is None else pytest.approx(now.kappa, rel=1e-9, abs=1e-9)
        )


@given(runs(max_steps=30))
def test_equals_the_equations_with_the_tolerance(run: Run) -> None:
    """Guarantee 3: alpha and beta are the oracle's to within 1e-4, for any history and any split of it into reports."""
    columns, begin, history = run
    tasks = columns.arranged()
    _, states = play(tasks, begun(tasks, begin), history)
    right_states = play_oracle(oracle(columns.each(), given_values(begin)), history)
    for state, right in zip(states, right_states, strict=True):
        assert_equal(state, tasks, right.now(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("forgetting", [0.0, 1e-4, 0.003, 0.1])
def test_dropped_deviations_never_add_up(forgetting: float) -> None:
    """If every update leaves a deviation just below the tolerance, the posterior is still right to 1e-4."""
    columns = Columns(2, {"weak": np.zeros(2, np.float32), "strong": np.ones(2, np.float32)})
    tasks = columns.arranged()
    begin: dict[str, Any] = {"forgetting": forgetting, "implicit_weight": 1.0, "rest": 0.0}
    step = Outcomes(tasks=(0, 1), successes=(0.5 + 0.9e-6, 0.5 - 0.9e-6), rollouts=(1, 1))
    state, right = begun(tasks, begin), oracle(columns.each(), given_values(begin))
    for _ in range(2000):
        state = fold(state, tasks, report(step))
        right.report(step.tasks, step.successes, step.rollouts)
    np.testing.assert_allclose(alpha_beta(state, tasks, None), right.now().seen(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("forgetting", [0.0, 1e-12, 0.1])
def test_negligible_deviations_are_dropped_whatever_the_forgetting(forgetting: float) -> None:
    """A deviation of 0, or of 1e-144 after thousands of updates, is none."""
    before = deviations.Deviations(np.array([3, 5, 7]), np.array([0.0, 1e-144, 1.0]), np.array([0.0, -1e-144, 0.0]))
    nothing = np.empty(0)
    after = deviations.after_update(before, forgetting, np.empty(0, np.int64), nothing, nothing)
    assert after.tasks.tolist() == [7]


@st.composite
def split_steps(draw: st.DrawFn) -> tuple[str, Columns, dict[str, Any], list[Outcomes], list[Outcomes]]:
    """A model, a dataset, a start, training steps of one report each, and the same steps split into reports.

    Successes are quarters, so that their sums are exact in any order.
    """
    model = draw(st.sampled_from(MODELS))
    columns, begin, _ = draw(runs(max_steps=1, model=model))
    whole, parts = [], []
    for step in range(draw(st.integers(1, 6))):
        drawn = []
        for part in draw(st.lists(outcomes(columns.size, 3), min_size=3, max_size=3)):
            quarters = tuple(round(4 * k) / 4 for k in part.successes)
            drawn.append(Outcomes(part.tasks, quarters, part.rollouts, f"step {step}"))
        whole.append(
            Outcomes(
                tasks=sum((part.tasks for part in drawn), ()),
                successes=sum((part.successes for part in drawn), ()),
                rollouts=sum((part.rollouts for part in drawn), ()),
                selection=f"step {step}",
            )
        )
        parts += draw(st.permutations(drawn))
    return model, columns, begin | {"rollouts_per_update": 0}, whole, parts


SplitSteps = tuple[str, Columns, dict[str, Any], list[Outcomes], list[Outcomes]]


@given(split_steps())
def test_parts_of_a_selection_are_one_update(case: SplitSteps) -> None:
    """The parts of a selection, by rank or by rollout, give every bit of the state that one report of it gives."""
    model, columns, begin, whole, parts = case
    tasks = columns.arranged()
    together = fold_all(begun(tasks, begin, model), tasks, [report(step) for step in whole])
    split = fold_all(begun(tasks, begin, model), tasks, [report(part) for part in parts])
    assert split.state.updates == len(whole)
    assert bits(split.state) == bits(together.state)
    assert bits(split.open) == bits(together.open)


@given(split_steps())
def test_late_parts_of_a_selection_join_its_update(case: SplitSteps) -> None:
    """Parts that arrive between reports of later selections give the state of whole reports in the order of the first
    parts.
    """
    model, columns, begin, whole, parts = case
    tasks = columns.arranged()
    late = [part for k in range(3) for part in parts[k::3]]
    together = fold_all(begun(tasks, begin, model), tasks, [report(step) for step in whole])
    split = fold_all(begun(tasks, begin, model), tasks, [report(part) for part in late])
    assert bits(split.state) == bits(together.state)


@given(split_steps())
def test_rollouts_per_update_makes_a_split_step_one_update(case: SplitSteps) -> None:
    """If a step's rollouts are R, its reports are one update, with or without selections."""
    model, columns, begin, whole, parts = case
    tasks = columns.arranged()
    split = together = begun(tasks, begin, model)
    for position, step in enumerate(whole):
        together = fold(together, tasks, report(step))
        split = fold(split, tasks, HyperparametersChanged({"rollouts_per_update": sum(step.rollouts)}))
        for part in parts[3 * position : 3 * position + 3]:
            split = fold(split, tasks, report(replace(part, selection="")))
        assert split.state.updates == together.state.updates == position + 1
        assert len(split.state.pending) == 0
    for got, expected in zip(alpha_beta(split, tasks, None), alpha_beta(together, tasks, None), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def test_the_seventeenth_newest_selection_is_closed() -> None:
    """A report of a selection that is no longer open is an update of its own."""
    tasks = Columns(40, {}).arranged()
    steps = [Outcomes((task,), (1.0,), (2,), f"{task}") for task in range(OPEN_UPDATES + 1)]
    state = fold_all(begun(tasks, {}), tasks, [report(step) for step in steps])
    joined = fold(state, tasks, report(replace(steps[1], tasks=(30,))))
    assert joined.state.updates == OPEN_UPDATES + 1
    assert joined.open[-OPEN_UPDATES].evidence.tasks.tolist() == [1, 30]
    own = fold(state, tasks, report(replace(steps[0], tasks=(30,))))
    assert own.state.updates == OPEN_UPDATES + 2


@pytest.mark.parametrize("selection", ["", "large"])
def test_an_update_that_takes_no_part_is_kept_behind_an_open_one_alone(
    selection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the evidence of reports without a selection, or of very many tasks, is not in each snapshot."""
    monkeypatch.setattr("bots_server.core.posterior.MOST_TASKS", 3)
    tasks = Columns(40, {}).arranged()
    closed = report(Outcomes((1, 2, 3), (1.0, 0.0, 2.0), (2, 2, 2), selection))
    state = fold_all(begun(tasks, {}), tasks, [closed, closed])
    assert (state.open, state.state.updates) == ((), 2)
    part = report(Outcomes((7,), (1.0,), (2,), "a"))
    state = fold_all(state, tasks, [part, closed, part])
    assert ([len(update.evidence) for update in state.open], state.state.updates) == ([1, 3], 4)
    assert bits(stored(state, tasks)) == bits(state)
    assert fold_all(state, tasks, [closed] * OPEN_UPDATES).open == ()


@pytest.mark.parametrize("parts", [False, True])
def test_a_long_history_with_late_parts_is_the_oracles(parts: bool) -> None:
    """Over many more updates than are open, each part joins its update if that is one of the newest 16; few states are
    kept meanwhile.
    """
    rng = np.random.default_rng(4)
    columns = Columns(30, {"weak": rng.random(30, np.float32), "strong": np.ones(30, np.float32)})
    tasks = columns.arranged()
    state, right = begun(tasks, {}), oracle(columns.each(), given_values({}))
    for number in range(120):
        selection = number - int(rng.integers(0, 20)) if parts and number % 2 else number
        step = Outcomes((number % 30, number % 7), (float(rng.integers(0, 9)), 3.0), (8, 8), f"{selection}")
        state = fold(state, tasks, report(step))
        right.report(step.tasks, step.successes, step.rollouts, step.selection)
        if number % 10 == 0:
            assert_equal(state, tasks, right.now(), rtol=0, atol=1e-4)
            assert bits(stored(state, tasks)) == bits(state)
        assert len(state.open) < OPEN_UPDATES + 8
        assert sum(update.before is not None for update in state.open) <= 4
    assert right.base.updates > 20


@pytest.mark.parametrize("closing", [HyperparametersChanged({"target": 0.4}), None])
def test_changes_and_restores_close_open_updates(closing: HyperparametersChanged | None) -> None:
    """After a change of hyperparameters or a restore, a further part is an update of its own; retiring closes none."""
    tasks = Columns(4, {}).arranged()
    part = report(Outcomes((0,), (1.0,), (2,), "a"))
    state = fold(begun(tasks, {}), tasks, part)
    assert fold_all(state, tasks, [Retired(np.array([1])), part]).state.updates == 1
    closed = fold(state, tasks, closing or Restored(state))
    assert (closed.open, bits(closed.state)) == ((), bits(state.state))
    assert fold(closed, tasks, part).state.updates == 2


def bits(held: object) -> object:
    """Returns everything that a state holds, to the last bit."""
    if isinstance(held, np.ndarray):
        return held.dtype.str, held.tobytes()
    if is_dataclass(held):
        return [bits(getattr(held, field.name)) for field in fields(held) if field.init]
    if isinstance(held, tuple):
        return [bits(part) for part in held]
    return held


def loaded(held: Any) -> Any:
    """Returns arrays, sets and evidence as they come back from bytes: other memory, and not writable."""
    if isinstance(held, np.ndarray):
        return np.frombuffer(held.tobytes(), held.dtype).reshape(held.shape)
    if is_dataclass(held) and not isinstance(held, type):
        return replace(held, **{field.name: loaded(getattr(held, field.name)) for field in fields(held)})
    return held


def stored(posterior: Posterior, tasks: Tasks) -> Posterior:
    """Returns a posterior as it comes back from a snapshot: the base and the evidence of the open updates."""
    base = posterior.base
    parts: dict[str, TaskSet] = {name: loaded(getattr(base.coverage, name)) for name in ("ever", "current", "previous")}
    coverage = restored(tasks, base.coverage.evaluations, base.coverage.in_half, **parts)
    state = replace(
        base,
        learned=loaded(base.learned),
        pending=loaded(base.pending),
        coverage=coverage,
        total=loaded(base.total),
        recent=loaded(base.recent),
    )
    closed = replace(posterior, retired=loaded(posterior.retired), open=(), state=state)
    updates = [loaded(replace(update, before=None)) for update in posterior.open]
    return reopened(closed, tasks, updates)


@given(st.data())
def test_same_bits_however_events_are_grouped(data: st.DataObject) -> None:
    """Folded at once, or in any groups with the state stored in between: every array is the same, bit for bit."""
    model = data.draw(st.sampled_from(MODELS))
    columns, begin, history = data.draw(runs(model=model))
    tasks = columns.arranged()
    first = begun(tasks, begin, model)
    events, states = play(tasks, first, history)
    assert bits(fold_all(first, tasks, events)) == bits(states[-1])
    grouped = first
    for group in data.draw(cuts(len(events))):
        grouped = fold_all(stored(grouped, tasks), tasks, events[group])
    assert bits(grouped) == bits(states[-1])


@given(folded())
def test_never_changes_its_input(run: tuple[Columns, list[Posterior], list[Step]]) -> None:
    """Folding on from a state leaves every bit of it as it was, so that a reader may hold it meanwhile."""
    columns, states, history = run
    tasks = columns.arranged()
    before = [bits(state) for state in states]
    for state in states:
        play(tasks, state, history)
    assert [bits(state) for state in states] == before


@given(st.data())
def test_some_tasks_are_read_as_all_are(data: st.DataObject) -> None:
    """alpha_beta of any tasks in any order, and individuals, are those of alpha_beta of all tasks, to rounding."""
    columns, (*_, state), _ = data.draw(folded())
    tasks = columns.arranged()
    which = np.array(data.draw(st.lists(st.integers(0, columns.size - 1), max_size=12)), np.int64)
    every = alpha_beta(state, tasks, None)
    own = individuals(state, tasks)
    for column, some, individual in zip(every, alpha_beta(state, tasks, which), (own.alpha, own.beta), strict=True):
        np.testing.assert_allclose(some, column[which], rtol=1e-9 * (state.model != "interpolation"), atol=0)
        np.testing.assert_array_equal(individual, column[own.tasks])
    if state.model == "interpolation":
        assert (every[0] >= tasks.strata.prior_alpha[tasks.stratum]).all()
        assert (every[1] >= tasks.strata.prior_beta[tasks.stratum]).all()
    np.testing.assert_array_equal(own.tasks, np.unique(own.tasks))


def test_a_deviation_is_dropped_when_small() -> None:
    """An evaluated task goes back to its stratum's baseline when its deviation is below the tolerance."""
    tasks = Columns(3, {}).arranged()
    state = fold(begun(tasks, {"forgetting": 0.9}), tasks, report(Outcomes((1,), (8.0,), (16,))))
    updates = 0
    while 1 in learned(state).deviations.tasks:
        state = fold(state, tasks, report(Outcomes((0,), (8.0,), (16,))))
        updates += 1
    assert updates == 7  # 8 pseudo-counts, of which a tenth is left each time
    assert learned(state).deviations.tasks.tolist() == [0]


def test_pending_outcomes_wait_for_rollouts_per_update() -> None:
    """Pending outcomes are seen and rest, but are no update until R rollouts are pending, or R is lowered to them."""
    tasks = Columns(3, {}).arranged()
    state = begun(tasks, {"rollouts_per_update": 32, "rest": 1.0})
    state = fold(state, tasks, report(Outcomes((2,), (4.0,), (16,))))
    assert (state.version, state.state.updates, state.state.pending.rollouts.tolist()) == (1, 0, [16.0])
    assert alpha_beta(state, tasks, None)[0].tolist() == [1.0, 1.0, 5.0]
    assert individuals(state, tasks).tasks.tolist() == [2]
    assert state.state.coverage.rank(np.arange(3)).tolist() == [0, 0, 2]
    lowered = fold(state, tasks, HyperparametersChanged({"rollouts_per_update": 16, "forgetting": 0.0}))
    assert (lowered.version, lowered.state.updates, len(lowered.state.pending)) == (2, 1, 0)
    assert alpha_beta(lowered, tasks, None)[0].tolist() == [1.0, 1.0, 5.0]
    filled = fold(state, tasks, report(Outcomes((0, 2), (0.0, 1.0), (15, 1))))
    assert (filled.version, filled.state.updates, len(filled.state.pending)) == (2, 1, 0)
    assert filled.state.coverage.evaluations == 2


def test_restoring_goes_on_with_the_version() -> None:
    """A restore brings back everything but the version, which goes on."""
    tasks = Columns(2, {}).arranged()
    first = begun(tasks, {})
    state = fold(first, tasks, report(Outcomes((0,), (1.0,), (2,)), time_ms=7))
    state = fold_all(state, tasks, [HyperparametersChanged({"target": 0.25}), Retired(np.array([1]))])
    restored_state = fold(state, tasks, Restored(first))
    assert restored_state.version == 4
    assert bits(replace(restored_state, version=0)) == bits(first)


def test_an_empty_report_changes_the_version_alone() -> None:
    """A report without outcomes is no update."""
    tasks = Columns(2, {}).arranged()
    state = fold(begun(tasks, {}), tasks, report(Outcomes((), (), ())))
    assert (state.version, state.state.updates, state.open) == (1, 0, ())
